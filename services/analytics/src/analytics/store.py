"""Keeps rollups in PostgreSQL; buckets are replaced whole, never added to."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Select, Table, cast, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from analytics.models import daily_rollups, dirty_days, hourly_rollups, watermarks
from analytics.rollups import Rollup
from analytics.time import DAY, Span, floor_day

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: Held while buckets are replaced, so that an older reading never overwrites a newer one. Any constant will do.
LOCK = 0x0CA_A111_A


class Store:
    """The tables of the schema `analytics`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # One connection of this process at a time waits for the database's lock, so that `read` always finds another.
        self._turn = asyncio.Lock()

    async def watermark(self) -> datetime | None:
        """Return the moment up to which the ledger was counted, if it ever was."""
        query = select(watermarks.c.watermark).where(watermarks.c.grain == "hour")
        async with self._engine.connect() as connection:
            found: datetime | None = await connection.scalar(query)
            return found

    async def replace_hours(self, span: Span, read: Callable[[Span], Awaitable[Sequence[Rollup]]]) -> int:
        """Replace the hours of a span by what `read` returns, and mark their days dirty; return the number of rows."""
        async with self._turn, self._engine.begin() as connection:
            await _lock(connection)
            rows = await read(span)
            hours = hourly_rollups.c.bucket
            await connection.execute(delete(hourly_rollups).where(hours >= span.since, hours < span.until))
            if rows:
                await connection.execute(insert(hourly_rollups), [asdict(row) for row in rows])
            days = [{"bucket": day.since} for day in Span(floor_day(span.since), span.until).chunks(DAY)]
            await connection.execute(insert(dirty_days).on_conflict_do_nothing(), days)
        return len(rows)

    async def advance(self, watermark: datetime) -> None:
        """Move the watermark forward; it never goes back."""
        new = insert(watermarks).values(grain="hour", watermark=watermark)
        later = func.greatest(watermarks.c.watermark, new.excluded.watermark)
        async with self._engine.begin() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=["grain"], set_={"watermark": later}))

    async def mark_days_dirty(self, since: datetime) -> None:
        """Mark each day that has hours since the given moment, so that it is computed anew."""
        day = func.date_trunc("day", hourly_rollups.c.bucket, "UTC").label("bucket")
        days = select(day).where(hourly_rollups.c.bucket >= floor_day(since)).distinct()
        async with self._engine.begin() as connection:
            await connection.execute(insert(dirty_days).from_select(["bucket"], days).on_conflict_do_nothing())

    async def replace_dirty_days(self) -> list[datetime]:
        """Replace each dirty day by the sum of its hours; return those days."""
        async with self._turn, self._engine.begin() as connection:
            await _lock(connection)
            taken = await connection.scalars(delete(dirty_days).returning(dirty_days.c.bucket))
            days = sorted(taken)
            await connection.execute(delete(daily_rollups).where(daily_rollups.c.bucket.in_(days)))
            await connection.execute(insert(daily_rollups).from_select(_COLUMNS, _sum_of_hours(days)))
        return days

    async def hourly(self, span: Span) -> list[Rollup]:
        """Return the rollups of these hours."""
        return await self._rows(hourly_rollups, span)

    async def daily(self, span: Span) -> list[Rollup]:
        """Return the rollups of the days that begin in this span."""
        return await self._rows(daily_rollups, span)

    async def _rows(self, table: Table, span: Span) -> list[Rollup]:
        buckets = table.c.bucket
        query = select(table).where(buckets >= span.since, buckets < span.until).order_by(*table.primary_key)
        async with self._engine.connect() as connection:
            return [Rollup(*row) for row in await connection.execute(query)]


_COLUMNS = [field.name for field in fields(Rollup)]


def _sum_of_hours(days: Sequence[datetime]) -> Select[*tuple[Any, ...]]:
    hour = hourly_rollups.c
    day = func.date_trunc("day", hour.bucket, "UTC")
    totals = cast(func.sum(hour.count), BigInteger), func.sum(hour.seconds)
    return (
        select(day, hour.kind, hour.name, hour.state, *totals)
        .where(day.in_(days))
        .group_by(day, hour.kind, hour.name, hour.state)
    )


async def _lock(connection: AsyncConnection) -> None:
    await connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK})
