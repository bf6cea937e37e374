"""What is told of runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.api.views import EventView, HoldView, Row, View


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
    #: What the current or last attempt reported.
    progress: ProgressView | None
    #: Why it failed, or why it is tried again, in one line.
    error: str | None


class ProgressView(View, frozen=True, kw_only=True):
    """What an attempt last reported of how far it is."""

    #: 0 to 1; null when it only kept a partial result.
    fraction: float | None
    stage: str | None
    message: str | None
    #: Seconds that were left at `at`, if it goes on as it did so far.
    eta_seconds: float | None
    at: datetime


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
    #: The run that this one repeats.
    replay_of: UUID | None
    #: Of a run that executes.
    progress: ProgressView | None
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
    #: Its host and process.
    worker: str | None
    started_at: datetime | None
    finished_at: datetime
    error: dict[str, Any] | None
    #: The last lines that it logged.
    log: str | None


class NeedView(View, frozen=True, kw_only=True):
    """A run that another one waits or waited for. Its task is null when it is not kept any more."""

    id: UUID
    task: str | None
    state: str | None
    #: How it ended; null while it is awaited.
    outcome: str | None


class AfterView(View, frozen=True, kw_only=True):
    """When a run that waits for others goes on; `needs` has the others."""

    #: succeeded, ended or any.
    when: str
    #: What happens when that cannot come true any more: cancel or run.
    otherwise: str
    #: Seconds that it still waits once it may go.
    delay_seconds: float


class SaidEvent(View, frozen=True, kw_only=True):
    """An event that a run said, with the runs that answered it."""

    event: EventView
    data: dict[str, Any]
    answers: list[RunSummary]


class StoredResultView(View, frozen=True, kw_only=True):
    """A result that is too large to be shown with its run."""

    bytes: int
    url: str


class RunDetails(View, frozen=True, kw_only=True):
    """All that is known of a run."""

    task_id: UUID
    id: UUID
    #: Whether it is a workflow that has waited for something: `GET /api/v1/workflows/{id}` has its steps.
    is_workflow: bool
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
    #: One run at a time is there with this key.
    unique_key: str | None
    #: Who is called back at its end: scheme and host, for the rest of the address may be a secret.
    callback_origin: str | None
    traceparent: str | None
    created_at: datetime
    run_at: datetime
    expires_at: datetime | None
    deadline_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    #: The worker that executes it, or did last; its host and process.
    worker_id: UUID | None
    worker: str | None
    #: When the worker last said that it lives, while the run executes.
    worker_heard_at: datetime | None
    #: When the current or last attempt last said with `run.beat()` that it goes on, to within five seconds.
    beat_at: datetime | None
    #: What the current or last attempt reported, and the partial result that it kept.
    progress: ProgressView | None
    partial: Any
    #: Who wants it cancelled, and why, while its code has not stopped yet.
    cancel: dict[str, Any] | None
    #: When somebody said of a failed run that nothing more has to be done about it.
    settled_at: datetime | None
    result: Any
    #: Where the result is read when it is too large for `result`, which is null then.
    stored_result: StoredResultView | None
    error: dict[str, Any] | None
    attempts: list[AttemptView]
    #: The pauses of its domain or task, for which it waits.
    holds: list[HoldView]
    #: Whether it waits until the limits of its task or domain let it in, and which of them that is.
    gated: bool
    awaited_limit: str | None
    #: When it goes on, if it waits or waited for other runs.
    after: AfterView | None
    #: The runs that it waits or waited for, at most 500.
    needs: list[NeedView]
    #: The run that submitted it, and as which step of it if that is a workflow.
    parent_id: UUID | None
    step: int | None
    #: Those that it submitted, at most 500.
    children: list[RunSummary]
    #: The run that it repeats, and those that repeat it.
    replay_of: UUID | None
    replays: list[RunSummary]
    #: The event that this run answers, if it answers one.
    cause: EventView | None
    said: list[SaidEvent]


def run_summary(row: Row) -> RunSummary:
    """A run in a list."""
    error = row["error"]
    return RunSummary.of(row, progress=progress_view(row["progress"]), error=None if error is None else error[:200])


def progress_view(reported: Row | None) -> ProgressView | None:
    """What was reported; None when nothing was, or a beat alone."""
    if reported is None or "at" not in reported:
        return None
    return ProgressView.of({**reported, "at": datetime.fromisoformat(reported["at"])})
