"""Retry: decides what happens after a failed attempt, by the policy of the task's owner."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from carillon.errors import Cancel, PermanentError, Snooze, TransientError
from carillon.ledger.records import State
from carillon.worker.execution import CANCELLED, FAILED, Execution, Verdict

#: No error may postpone a run for longer.
MOST_DELAY = timedelta(days=30)


class RetryMiddleware(TaskiqMiddleware):
    """Outermost, so that its `on_error` speaks last. The retry itself is a `run_at` in the ledger."""

    def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:  # noqa: ARG002
        """Turn the error into a verdict."""
        execution: Execution = message.execution  # type: ignore[attr-defined]
        execution.verdict = verdict_of(execution, exception)


def verdict_of(execution: Execution, error: BaseException) -> Verdict:
    """What an error says to do next."""
    if isinstance(error, Cancel):
        return CANCELLED
    if isinstance(error, Snooze):
        return Verdict(State.QUEUED, "snoozed", min(error.delay, MOST_DELAY), counted=False)
    if isinstance(error, PermanentError) or execution.task is None:
        return FAILED
    delay = execution.task.retry.delay(execution.counted_attempt)
    if delay is None:
        return FAILED
    if isinstance(error, TransientError) and error.retry_after is not None:
        delay = min(error.retry_after, MOST_DELAY)
    return Verdict(State.RETRYING, "retried", delay)
