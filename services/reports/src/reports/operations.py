"""The operations report from end to end: collected, rendered, kept, and only then recorded as rendered."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from carillon.contracts import Artefact, ReportRendered
from reports import wording
from reports.collecting import collect_operations, days_in
from reports.dataset import REPORT
from reports.errors import NoDatasetError
from reports.files import MEDIA_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from carillon.contracts import RollupsComputed
    from reports.dataset import OperationsData
    from reports.days import DayBook
    from reports.files import RenderedFile


class RenderedReport(NamedTuple):
    """A report as the register knows it; the hash of its data says whether a rerun must give the same bytes."""

    id: UUID
    data_sha256: str
    rendered: ReportRendered


class Renders(Protocol):
    """Turns a data set into checked files, or raises and leaves none."""

    async def render(self, data: OperationsData) -> Sequence[RenderedFile]:
        """Every format of the report."""


class Keeps(Protocol):
    """Keeps files by key; the same key again replaces the file."""

    async def keep(self, key: str, content: bytes) -> None:
        """Keep one file."""


class Remembers(Protocol):
    """Remembers rendered reports and the last rollups of each."""

    async def find(self, report_id: UUID) -> ReportRendered | None:
        """A report rendered before, or None."""

    async def record(self, report: RenderedReport) -> None:
        """Remember a report and its artefacts, once."""

    async def remember_rollups(self, report: str, rollups: RollupsComputed) -> None:
        """Remember rollups, unless younger ones are known."""

    async def last_rollups(self, report: str) -> RollupsComputed | None:
        """The youngest rollups heard."""


class OperationsReports:
    """Renders operations reports; each has the id of the run that asked for it."""

    def __init__(self, renderer: Renders, shelf: Keeps, register: Remembers, days: DayBook) -> None:
        self._renderer = renderer
        self._shelf = shelf
        self._register = register
        self._days = days

    async def hear(self, rollups: RollupsComputed) -> None:
        """Remember rollups, so that a report can be rendered by hand later, and their days, for those over a period."""
        await self._days.remember(days_in(rollups))
        await self._register.remember_rollups(REPORT, rollups)

    async def render(self, report_id: UUID, rollups: RollupsComputed | None = None) -> ReportRendered:
        """Render from these rollups or from the last ones heard; a report that exists is returned as it is."""
        if found := await self._register.find(report_id):
            return found
        data = collect_operations(rollups or await self._last_rollups())
        files = await self._renderer.render(data)
        rendered = ReportRendered(
            report=REPORT,
            title=wording.title(data),
            summary=wording.summary(data),
            as_of=data.as_of,
            artefacts=[artefact_of(file, REPORT, report_id) for file in files],
        )
        for file, artefact in zip(files, rendered.artefacts, strict=True):
            await self._shelf.keep(artefact.key, file.content)
        data_sha256 = hashlib.sha256(data.model_dump_json().encode()).hexdigest()
        await self._register.record(RenderedReport(report_id, data_sha256, rendered))
        return rendered

    async def _last_rollups(self) -> RollupsComputed:
        rollups = await self._register.last_rollups(REPORT)
        if rollups is None:
            message = (
                "no rollups were heard yet, so there is nothing to report; say backup.requested.v1 (`carillon tour` "
                "does), or give rollups as the task's argument"
            )
            raise NoDatasetError(message)
        return rollups


def artefact_of(file: RenderedFile, report: str, report_id: UUID) -> Artefact:
    """How a file is known outside, and where it is kept: the same report, id and name are the same place."""
    return Artefact(
        format=file.format,
        filename=file.filename,
        media_type=MEDIA_TYPES[file.format],
        key=f"reports/{report}/{report_id}/{file.filename}",
        size_bytes=len(file.content),
        sha256=hashlib.sha256(file.content).hexdigest(),
    )
