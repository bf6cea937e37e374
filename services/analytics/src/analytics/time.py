"""Hours and days in UTC, and the spans that are computed anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Span(NamedTuple):
    """Whole hours from `since`, included, to `until`, not included."""

    since: datetime
    until: datetime

    def chunks(self, size: timedelta) -> Iterator[Span]:
        """Cut the span into parts of at most `size`, oldest first."""
        start = self.since
        while start < self.until:
            end = min(start + size, self.until)
            yield Span(start, end)
            start = end


def floor_hour(moment: datetime) -> datetime:
    """Return the start of the moment's hour, in UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def ceil_hour(moment: datetime) -> datetime:
    """Return the start of the first hour that begins at the moment or later."""
    floor = floor_hour(moment)
    return floor if floor == moment else floor + HOUR


def floor_day(moment: datetime) -> datetime:
    """Return the start of the moment's day, in UTC."""
    return floor_hour(moment).replace(hour=0)


def dirty_hours(
    now: datetime, *, watermark: datetime | None, late: timedelta, retention: timedelta, since: datetime | None = None
) -> Span:
    """Say which hours to compute anew: those that may have changed since the watermark, and those asked for.

    Hours that the ledger no longer holds whole are never among them: computing those anew would erase what is kept here
    longer than there.
    """
    oldest = ceil_hour(now - retention)
    asked = [moment for moment in (since, None if watermark is None else watermark - late) if moment is not None]
    start = max(oldest, floor_hour(min(asked))) if watermark is not None else oldest
    return Span(min(start, floor_hour(now)), floor_hour(now) + HOUR)
