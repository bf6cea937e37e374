"""Reports over a period, step by step: the data collected and kept, then one file of it rendered and kept."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from carillon.contracts import Artefact, ReportRendered
from reports import wording
from reports.collecting import collect_period
from reports.dataset import Frozen
from reports.errors import DamagedDatasetError, NoDatasetError
from reports.operations import RenderedReport, artefact_of
from reports.periods import Period, PeriodData

if TYPE_CHECKING:
    from reports.days import DayBook
    from reports.files import FileFormat, RenderedFile
    from reports.operations import Remembers


class Collected(Frozen):
    """A data set that was collected: where it lies, and what one decides by."""

    #: The run that collected it.
    id: UUID
    period: Period
    sha256: str
    days_heard: int
    #: Runs that ended, by state, and the seconds that they took.
    numbers: dict[str, float]
    #: Why there is nothing to report, where that is so.
    empty: str | None


class ReadyReport(Frozen):
    """A report that was rendered, and can be delivered."""

    report: str
    title: str
    summary: str
    as_of: datetime
    artefact: Artefact


class RendersOne(Protocol):
    """Turns the data set of a period into one checked file, or raises and leaves none."""

    async def render(self, data: PeriodData, kind: FileFormat) -> RenderedFile:
        """The report in this format."""


class KeepsAndReads(Protocol):
    """Keeps files by key."""

    async def keep(self, key: str, content: bytes) -> None:
        """Keep one file; the same key again replaces it."""

    async def keep_first(self, key: str, content: bytes) -> bytes:
        """Keep one file unless there is one of that key; returns what is kept."""

    async def read(self, key: str) -> bytes:
        """One file; raises `FileNotFoundError` where there is none."""


class PeriodReports:
    """Makes reports over a period; data sets and reports have the ids of the runs that made them."""

    def __init__(self, days: DayBook, renderer: RendersOne, shelf: KeepsAndReads, register: Remembers) -> None:
        self._days = days
        self._renderer = renderer
        self._shelf = shelf
        self._register = register

    async def collect(self, collection_id: UUID, period: Period) -> Collected:
        """Keep the data of a period; data that was kept under this id before stays, whatever was heard since."""
        heard = await self._days.between(period.start_date, period.end_date)
        if not heard:
            empty = f"No rollups were heard of any day from {wording.days(period)}"
            return Collected(id=collection_id, period=period, sha256="", days_heard=0, numbers={}, empty=empty)
        data = collect_period(period, heard)
        content = await self._shelf.keep_first(_key(period, collection_id), data.model_dump_json().encode())
        data = PeriodData.model_validate_json(content)
        return Collected(
            id=collection_id,
            period=period,
            sha256=hashlib.sha256(content).hexdigest(),
            days_heard=len(data.days),
            numbers=_numbers(data),
            empty=None if data.total.ended else wording.nothing(data),
        )

    async def format(self, report_id: UUID, collected: Collected, kind: FileFormat) -> ReadyReport:
        """Render collected data and keep the file; a report that exists is returned as it is."""
        rendered = await self._register.find(report_id) or await self._render(report_id, collected, kind)
        (artefact,) = rendered.artefacts
        return ReadyReport(artefact=artefact, **rendered.model_dump(exclude={"artefacts"}))

    async def _render(self, report_id: UUID, collected: Collected, kind: FileFormat) -> ReportRendered:
        content = await self._read(collected)
        data = PeriodData.model_validate_json(content)
        file = await self._renderer.render(data, kind)
        report = data.period.report_type
        rendered = ReportRendered(
            report=report,
            title=wording.period_title(data),
            summary=wording.period_summary(data),
            as_of=data.as_of,
            artefacts=[artefact_of(file, report, report_id)],
        )
        await self._shelf.keep(rendered.artefacts[0].key, file.content)
        await self._register.record(RenderedReport(report_id, collected.sha256, rendered))
        return rendered

    async def _read(self, collected: Collected) -> bytes:
        try:
            content = await self._shelf.read(_key(collected.period, collected.id))
        except FileNotFoundError as error:
            message = f"the data of the collection {collected.id} is no longer in storage; ask for the report again"
            raise DamagedDatasetError(message) from error
        if hashlib.sha256(content).hexdigest() != collected.sha256:
            message = f"the data of the collection {collected.id} is not what was collected; ask for the report again"
            raise DamagedDatasetError(message)
        return content


def check_worth(collected: Collected) -> None:
    """Let a report be made of what was collected.

    Raises `NoDatasetError` where nothing is known: a report that shows zero for days of which nobody heard would be
    wrong.
    """
    if not collected.days_heard:
        message = (
            f"{collected.empty}; reports are made of what analytics says after each backup (backup.requested.v1, or "
            "`carillon tour`): ask for a period since then, or say skip_if_empty"
        )
        raise NoDatasetError(message)


def _key(period: Period, collection_id: UUID) -> str:
    return f"reports/{period.report_type}/{collection_id}/data.json"


def _numbers(data: PeriodData) -> dict[str, float]:
    total = data.total
    counts = {state: getattr(total, state) for state in ("completed", "failed", "cancelled", "other")}
    return {"runs": total.ended, **counts, "seconds": total.execution_ms / 1000}
