"""What is asked of the schema `reports`, each question in a short transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from carillon.contracts import Artefact, ReportRendered, RollupsComputed
from reports.days import HeardDay
from reports.models import artefacts, datasets, days, reports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from reports.operations import RenderedReport


class ReportRegister:
    """Rendered reports, their artefacts, and the last rollups heard."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, report_id: UUID) -> ReportRendered | None:
        """A report rendered before, or None."""
        which = select(reports).where(reports.c.id == report_id)
        files = select(artefacts).where(artefacts.c.report_id == report_id).order_by(artefacts.c.position)
        async with self._engine.connect() as connection:
            row = (await connection.execute(which)).mappings().one_or_none()
            kept = (await connection.execute(files)).mappings().all()
        if row is None:
            return None
        return ReportRendered(
            **{field: row[field] for field in ("report", "title", "summary", "as_of")},
            artefacts=[Artefact(**{field: file[field] for field in Artefact.model_fields}) for file in kept],
        )

    async def record(self, report: RenderedReport) -> None:
        """Remember a report and its artefacts; nothing happens where the id is known."""
        said = report.rendered
        row = {"id": report.id, "data_sha256": report.data_sha256, **said.model_dump(exclude={"artefacts"})}
        files = [
            {"report_id": report.id, "position": position, "as_of": said.as_of, **artefact.model_dump()}
            for position, artefact in enumerate(said.artefacts)
        ]
        async with self._engine.begin() as connection:
            new = insert(reports).values(row).on_conflict_do_nothing().returning(reports.c.id)
            if (await connection.execute(new)).first() is not None:
                await connection.execute(insert(artefacts), files)

    async def remember_rollups(self, report: str, rollups: RollupsComputed) -> None:
        """Remember rollups, unless younger ones are known: events may arrive in any order."""
        row = {"report": report, "as_of": rollups.watermark, "rollups": rollups.model_dump(mode="json")}
        put = insert(datasets).values(row)
        newer = put.on_conflict_do_update(
            index_elements=[datasets.c.report],
            set_={"as_of": put.excluded.as_of, "rollups": put.excluded.rollups, "heard_at": func.now()},
            where=datasets.c.as_of <= put.excluded.as_of,
        )
        async with self._engine.begin() as connection:
            await connection.execute(newer)

    async def last_rollups(self, report: str) -> RollupsComputed | None:
        """The youngest rollups heard for a report."""
        async with self._engine.connect() as connection:
            kept = await connection.scalar(select(datasets.c.rollups).where(datasets.c.report == report))
        return None if kept is None else RollupsComputed.model_validate(kept)


class StoredDays:
    """The days that were heard of, in the table `reports.days`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def remember(self, heard: Sequence[HeardDay]) -> None:
        """See `DayBook`."""
        put = insert(days).values([day.model_dump(mode="json") | {"day": day.day, "as_of": day.as_of} for day in heard])
        newer = put.on_conflict_do_update(
            index_elements=[days.c.day],
            set_={"as_of": put.excluded.as_of, "rows": put.excluded.rows},
            where=days.c.as_of <= put.excluded.as_of,
        )
        async with self._engine.begin() as connection:
            await connection.execute(newer)

    async def between(self, first: date, last: date) -> list[HeardDay]:
        """See `DayBook`."""
        which = select(days).where(days.c.day.between(first, last)).order_by(days.c.day)
        async with self._engine.connect() as connection:
            return [HeardDay.model_validate(dict(row)) for row in (await connection.execute(which)).mappings()]
