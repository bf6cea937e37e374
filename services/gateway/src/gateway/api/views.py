"""What the answers look like. Times are UTC, ids are UUIDs, durations are seconds."""

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
    """A run that is durable now. `created` is false when the same idempotency key made it earlier."""

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


class RunStatus(View, frozen=True, kw_only=True):
    """How far a run is."""

    task_id: UUID
    id: UUID
    task: str
    domain: str
    status: str
    attempt: int
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: Why it failed, or why it is tried again, in one line.
    error: str | None


class RunSummary(View, frozen=True, kw_only=True):
    """A run in a list."""

    id: UUID
    task: str
    domain: str
    state: str
    attempt: int
    priority: int
    labels: dict[str, str]
    actor: str
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


class RunPage(View, frozen=True, kw_only=True):
    """One page of runs, newest first. `next_cursor` is null on the last one."""

    runs: list[RunSummary]
    next_cursor: str | None


class AttemptView(View, frozen=True, kw_only=True):
    """One ended execution of a run."""

    attempt: int
    outcome: str
    worker_id: UUID | None
    started_at: datetime | None
    finished_at: datetime
    error: dict[str, Any] | None


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


class SaidEvent(View, frozen=True, kw_only=True):
    """An event that a run said, with the runs that answered it."""

    event: EventView
    data: dict[str, Any]
    answers: list[RunSummary]


class RunDetails(View, frozen=True, kw_only=True):
    """All that is known of a run."""

    task_id: UUID
    id: UUID
    task: str
    domain: str
    status: str
    args: dict[str, Any]
    labels: dict[str, str]
    priority: int
    attempt: int
    #: How often a worker died while it ran this.
    lost: int
    actor: str
    idempotency_key: str | None
    traceparent: str | None
    created_at: datetime
    run_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    result: Any
    error: dict[str, Any] | None
    attempts: list[AttemptView]
    #: The event that this run answers, if it answers one.
    cause: EventView | None
    said: list[SaidEvent]


class ScheduleView(View, frozen=True, kw_only=True):
    """A schedule: what it fires, and when."""

    name: str
    cron: str | None
    interval_seconds: int | None
    timezone: str
    event_type: str
    owner: str
    paused: bool
    paused_by: str | None
    next_run_time: datetime | None
    last_run_time: datetime | None


class ScheduleList(View, frozen=True, kw_only=True):
    """All schedules."""

    schedules: list[ScheduleView]


class FireView(View, frozen=True, kw_only=True):
    """One moment at which a schedule fired, or did not, and why."""

    fire_at: datetime
    outcome: str
    detail: str | None
    event_id: UUID | None
    decided_at: datetime


class FireList(View, frozen=True, kw_only=True):
    """The newest fires of a schedule."""

    schedule: str
    fires: list[FireView]


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


class AuditEntry(View, frozen=True, kw_only=True):
    """Something that was done. `hash` is the SHA-256 of the rest as JSON, with sorted names and without spaces."""

    seq: int
    at: str
    #: The name of a key, a person or a service.
    actor: str
    #: The process, host or address that it was done from.
    origin: str
    action: str
    subject: str
    reason: str | None
    details: dict[str, Any]
    #: The hash of the entry before.
    previous: str
    hash: str


class AuditPage(View, frozen=True, kw_only=True):
    """One page of the audit trail, newest first. `next_cursor` is null on the last one."""

    entries: list[AuditEntry]
    next_cursor: str | None


class BrokenEntry(View, frozen=True, kw_only=True):
    """The first entry with which the chain does not hold."""

    seq: int
    fault: str


class AuditVerdict(View, frozen=True, kw_only=True):
    """How far the chain of the audit trail holds."""

    holds: bool
    #: How many entries hold, from the first on.
    entries: int
    #: The hash of the last of them; noted elsewhere, it proves later that they are the same.
    hash: str
    broken: BrokenEntry | None


class WorkerView(View, frozen=True, kw_only=True):
    """A worker process that has not retired."""

    id: UUID
    domain: str
    host: str
    pid: int
    version: str
    concurrency: int
    running: int
    started_at: datetime
    heartbeat_at: datetime


class DomainView(View, frozen=True, kw_only=True):
    """A domain, and how many of its runs are in each state: all that wait or run, and those of the last day."""

    name: str
    counts: dict[str, int]


class Overview(View, frozen=True, kw_only=True):
    """What the status page shows."""

    transport: str
    domains: list[DomainView]
    running: list[RunSummary]
    failed: list[RunSummary]
    recent: list[RunSummary]
    schedules: list[ScheduleView]
    workers: list[WorkerView]
    events: list[EventView]


def run_summary(row: Row) -> RunSummary:
    """A run in a list."""
    error = row["error"]
    return RunSummary.of(row, error=None if error is None else error[:200])


def schedule_view(row: Row) -> ScheduleView:
    """A schedule, in the words of the specification."""
    return ScheduleView.of(
        row,
        paused=row["paused_at"] is not None,
        next_run_time=None if row["paused_at"] is not None else row["next_fire_at"],
        last_run_time=row["last_fire_at"],
    )
