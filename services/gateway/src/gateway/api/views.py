"""What the answers look like, and how they are made from rows. Times are UTC, ids are UUIDs, durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from msgspec import Struct

from carillon.limits import in_words

Row = Mapping[str, Any]


class View(Struct, frozen=True, kw_only=True):
    """An answer made from a row of the ledger, by the names of its columns."""

    @classmethod
    def of(cls, row: Row, **more: object) -> Self:
        """The view of a row."""
        given = {name: row[name] for name in cls.__struct_fields__ if name in row}
        return cls(**{**given, **more})


class Accepted(View, frozen=True, kw_only=True):
    """A run that is durable now.

    `created` is false when it was there: made earlier with the same idempotency key, or holding the unique key.
    """

    task_id: UUID
    id: UUID
    task: str
    created: bool
    status_url: str


class AcceptedBatch(View, frozen=True, kw_only=True):
    """Runs that are durable now, in the order in which they were asked for."""

    tasks: list[Accepted]


class RateView(View, frozen=True, kw_only=True):
    """So many starts in so many seconds, and how many of them may come together."""

    number: int
    per_seconds: float
    burst: int


class LimitsView(View, frozen=True, kw_only=True):
    """How many runs of a task may execute at once, and how often one may start; null is no limit."""

    concurrency: int | None
    #: The argument whose value is the key, with dots for what is inside it.
    key: str | None
    per_key: int | None
    rate: RateView | None
    rate_per_key: RateView | None
    #: The same in words.
    told: str


class TaskView(View, frozen=True, kw_only=True):
    """A task of the catalogue. `schema` is the JSON Schema of its arguments."""

    name: str
    domain: str
    doc: str
    schema: dict[str, Any]
    policy: dict[str, Any]
    #: What its owner declared for it, and how many runs of its whole domain may execute at once.
    limits: LimitsView | None
    domain_limit: int | None
    #: The type of event that it answers, if it is an event handler.
    hears: str | None
    says: list[str]
    is_default: bool


class TaskList(View, frozen=True, kw_only=True):
    """The catalogue."""

    tasks: list[TaskView]


class HoldView(View, frozen=True, kw_only=True):
    """A domain or task of which nothing starts."""

    name: str
    actor: str
    reason: str | None
    since: datetime


class EventView(View, frozen=True, kw_only=True):
    """An event that was recorded."""

    id: UUID
    event_id: str
    type: str
    source: str
    subject: str | None
    time: datetime
    recorded_at: datetime
    #: The run that said it, if one did.
    run_id: UUID | None
    actor: str


class RecordedEvent(View, frozen=True, kw_only=True):
    """An event that was taken. `recorded` is false when it had been recorded before, which changed nothing."""

    id: UUID
    event_id: str
    source: str
    type: str
    recorded: bool


class RecordedEvents(View, frozen=True, kw_only=True):
    """What became of the events of one request."""

    events: list[RecordedEvent]


class EventTypeView(View, frozen=True, kw_only=True):
    """A type of event that a domain says or hears. `schema` is the JSON Schema of its data."""

    type: str
    doc: str
    schema: dict[str, Any]


class EventTypeList(View, frozen=True, kw_only=True):
    """All contracts."""

    event_types: list[EventTypeView]


class EventList(View, frozen=True, kw_only=True):
    """The newest events."""

    events: list[EventView]


def limits_view(policy: Row) -> LimitsView | None:
    """The limits in the policy of a task."""
    if (limits := policy.get("limits")) is None:
        return None
    rates = {name: RateView.of(limits[name]) if name in limits else None for name in ("rate", "rate_per_key")}
    given = dict.fromkeys(("concurrency", "key", "per_key")) | dict(limits) | rates
    return LimitsView.of(given, told=in_words(limits))


def task_view(row: Row, domain_limits: Mapping[str, int | None]) -> TaskView:
    """A task as the catalogue has it, with the limits of domains by their names."""
    return TaskView.of(row, limits=limits_view(row["policy"]), domain_limit=domain_limits.get(row["domain"]))
