"""What was heard of each day, and the book that keeps it: reports over a period are made of its pages."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

from carillon.contracts import RollupRow
from reports.dataset import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class HeardDay(Frozen):
    """One day of UTC, as the youngest rollups told of it."""

    day: date
    #: Up to when it was counted; within the day itself where that was not over.
    as_of: datetime
    rows: tuple[RollupRow, ...]


class DayBook(Protocol):
    """Keeps what was heard of each day."""

    async def remember(self, heard: Sequence[HeardDay]) -> None:
        """Keep these days, at least one; a day of which younger rollups told stays as it is."""

    async def between(self, first: date, last: date) -> Sequence[HeardDay]:
        """The days that were heard of from the first to the last, both included, in order."""


class RememberedDays:
    """The book in memory: the twin of the one in PostgreSQL."""

    def __init__(self, heard: Iterable[HeardDay] = ()) -> None:
        self._days = {day.day: day for day in heard}

    async def remember(self, heard: Sequence[HeardDay]) -> None:
        """See `DayBook`."""
        for day in heard:
            known = self._days.get(day.day)
            if known is None or known.as_of <= day.as_of:
                self._days[day.day] = day

    async def between(self, first: date, last: date) -> list[HeardDay]:
        """See `DayBook`."""
        return [self._days[day] for day in sorted(self._days) if first <= day <= last]
