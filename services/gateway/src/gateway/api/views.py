"""What the answers look like, and how they are made from rows. Times are UTC, ids are UUIDs, durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from msgspec import Struct

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


class TaskView(View, frozen=True, kw_only=True):
    """A task of the catalogue. `schema` is the JSON Schema of its arguments."""

    name: str
    domain: str
    doc: str
    schema: dict[str, Any]
    policy: dict[str, Any]
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
