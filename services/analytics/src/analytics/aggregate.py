"""Computes rollups anew: hours from the ledger, days from hours."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel

from analytics.rollups import Rollup, folded, rolled_up
from analytics.time import DAY, HOUR, Span, dirty_hours, floor_day, floor_hour
from carillon.contracts import RollupRow, RollupsComputed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from analytics.counts import LedgerCounts
    from analytics.store import Store

#: How many hours are replaced in one transaction.
CHUNK = DAY
#: What `RollupsComputed` carries of each grain.
RECENT_HOURS, RECENT_DAYS, RECENT_ROWS = 24, 14, 500


class Recomputed(BaseModel):
    """What an aggregation did: the result of its run."""

    since: datetime
    until: datetime
    buckets: int
    rows: int


class Aggregator:
    """Recomputes what may have changed, and reads what is recent."""

    def __init__(
        self,
        ledger: LedgerCounts,
        store: Store,
        *,
        late: timedelta,
        retention: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._late = late
        self._retention = retention
        self._clock = clock

    async def hours(self, since: datetime | None = None) -> Recomputed:
        """Compute the hours that may have changed anew, from `since` where that is earlier."""
        now = self._clock()
        watermark = await self._store.watermark()
        span = dirty_hours(now, watermark=watermark, late=self._late, retention=self._retention, since=since)
        rows = [await self._store.replace_hours(chunk, self._read) for chunk in span.chunks(CHUNK)]
        # Last, so that a crash between two chunks leaves the rest to the next time.
        await self._store.advance(now)
        return Recomputed(since=span.since, until=now, buckets=(span.until - span.since) // HOUR, rows=sum(rows))

    async def days(self, since: datetime | None = None) -> Recomputed:
        """Compute the days anew whose hours were, and those from `since` on where that is given."""
        now = self._clock()
        if since is not None:
            await self._store.mark_days_dirty(since)
        days = await self._store.replace_dirty_days()
        rows = await self._store.daily(Span(days[0], days[-1] + DAY)) if days else []
        changed = [row for row in rows if row.bucket in set(days)]
        return Recomputed(since=days[0] if days else now, until=now, buckets=len(days), rows=len(changed))

    async def recent(self, cause: str) -> RollupsComputed:
        """Read what is recent as the event that tells of it."""
        watermark = await self._store.watermark() or self._clock()
        hour, day = floor_hour(watermark), floor_day(watermark)
        hourly = await self._store.hourly(Span(hour - (RECENT_HOURS - 1) * HOUR, hour + HOUR))
        daily = await self._store.daily(Span(day - (RECENT_DAYS - 1) * DAY, day + DAY))
        return RollupsComputed(
            watermark=watermark,
            cause=cause,
            hourly=[_row(row, "hour") for row in folded(hourly, RECENT_ROWS)],
            daily=[_row(row, "day") for row in folded(daily, RECENT_ROWS)],
        )

    async def _read(self, span: Span) -> Sequence[Rollup]:
        runs = await self._ledger.count_runs_by_hour(span.since, span.until)
        return rolled_up(runs, await self._ledger.count_events_by_hour(span.since, span.until))


def _row(row: Rollup, grain: str) -> RollupRow:
    return RollupRow.model_validate({"grain": grain, **asdict(row)})
