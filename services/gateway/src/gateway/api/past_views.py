"""What answers about the past look like. Times are UTC, durations are seconds."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct


class ChangeView(Struct, frozen=True):
    """One moment in the life of a run."""

    at: datetime
    #: The state from then on; null where it stayed what it was.
    state: str | None
    by: str
    what: str


class RunHistory(Struct, frozen=True, kw_only=True):
    """Every change of a run, first to last."""

    id: UUID
    changes: list[ChangeView]


class NumbersView(Struct, frozen=True):
    """How many runs ended in which state. `failure_rate` is of those that were executed; null where none was."""

    counts: dict[str, int]
    failure_rate: float | None
    per_minute: float
    per_hour: float
    #: Those that were attempted again because an attempt had failed; snoozes and lost workers are not counted.
    retried: int
    #: How long their last attempts took altogether.
    seconds: float


class SpreadView(Struct, frozen=True):
    """Half, 95 and 99 of a hundred were no longer than so many seconds."""

    p50: float
    p95: float
    p99: float


class TaskNumbersView(Struct, frozen=True, kw_only=True):
    """Those of one task: how long its last attempts took, and how long they waited once they were due."""

    task: str
    total: NumbersView
    duration: SpreadView | None
    wait: SpreadView | None


class BucketView(Struct, frozen=True):
    """One minute (of a window up to three hours) or one hour, from its beginning on."""

    at: datetime
    counts: dict[str, int]


class StatisticsView(Struct, frozen=True, kw_only=True):
    """What ended in a window, and what lives now. Counts are estimates where `share` is less than 1."""

    since: datetime
    until: datetime
    share: float
    total: NumbersView
    tasks: list[TaskNumbersView]
    buckets: list[BucketView]
    live: dict[str, int]
