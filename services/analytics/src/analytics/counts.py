"""What analytics reads: runs and events counted by the hour, and the twin that counts in memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from analytics.time import floor_hour

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class RunCount(Protocol):
    """How many runs of one task are in one state, of those that belong to one hour."""

    @property
    def bucket(self) -> datetime:
        """The start of the hour, in UTC."""

    @property
    def task(self) -> str:
        """The task's name."""

    @property
    def state(self) -> str:
        """The runs' state."""

    @property
    def count(self) -> int:
        """How many they are."""

    @property
    def seconds(self) -> float:
        """The sum of their execution times."""


class EventCount(Protocol):
    """How many events of one type were said in one hour."""

    @property
    def bucket(self) -> datetime:
        """The start of the hour, in UTC."""

    @property
    def type(self) -> str:
        """The events' type."""

    @property
    def count(self) -> int:
        """How many they are."""


class LedgerCounts(Protocol):
    """Counts over the ledger; `since` is included, `until` is not."""

    async def count_runs_by_hour(self, since: datetime, until: datetime) -> Sequence[RunCount]:
        """Count runs by hour, task and state."""

    async def count_events_by_hour(self, since: datetime, until: datetime) -> Sequence[EventCount]:
        """Count events by hour and type."""


class RememberedRun(NamedTuple):
    """One run that the twin counts."""

    time: datetime
    task: str
    state: str
    seconds: float


class RememberedEvent(NamedTuple):
    """One event that the twin counts."""

    time: datetime
    type: str


@dataclass(frozen=True, slots=True)
class RememberedRunCount:
    """What the twin says of runs."""

    bucket: datetime
    task: str
    state: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RememberedEventCount:
    """What the twin says of events."""

    bucket: datetime
    type: str
    count: int


@dataclass
class RememberedCounts:
    """The ledger's counts in memory, over runs and events that are put into its lists."""

    runs: list[RememberedRun] = field(default_factory=list)
    events: list[RememberedEvent] = field(default_factory=list)

    async def count_runs_by_hour(self, since: datetime, until: datetime) -> Sequence[RunCount]:
        """See LedgerCounts."""
        groups: defaultdict[tuple[datetime, str, str], list[float]] = defaultdict(list)
        for run in self.runs:
            if since <= run.time < until:
                groups[floor_hour(run.time), run.task, run.state].append(run.seconds)
        return [RememberedRunCount(*key, len(seconds), sum(seconds)) for key, seconds in sorted(groups.items())]

    async def count_events_by_hour(self, since: datetime, until: datetime) -> Sequence[EventCount]:
        """See LedgerCounts."""
        groups: defaultdict[tuple[datetime, str], int] = defaultdict(int)
        for event in self.events:
            if since <= event.time < until:
                groups[floor_hour(event.time), event.type] += 1
        return [RememberedEventCount(*key, count) for key, count in sorted(groups.items())]
