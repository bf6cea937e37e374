"""Retry: decides what happens after a failed attempt, by the policy of the task's owner."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from carillon.errors import Cancel, PermanentError, Snooze
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
    """What an error says to do next. A retry takes its moment from the task's budget, so ask once for each attempt."""
    if isinstance(error, Cancel):
        return CANCELLED
    if isinstance(error, Snooze):
        return Verdict(State.QUEUED, "snoozed", min(error.delay, MOST_DELAY), counted=False)
    task = execution.task
    if isinstance(error, PermanentError) or task is None:
        return FAILED
    delay = task.retry.for_error(error).delay(execution.counted_attempt)
    if delay is None:
        return FAILED
    named = retry_after(error)
    return Verdict(State.RETRYING, "retried", task.budget.reserve(delay if named is None else named))


def retry_after(error: BaseException) -> timedelta | None:
    """The delay that an error names in `retry_after`, a timedelta or a number of seconds; None where it does not.

    Any error may have one: many HTTP and queue clients keep there what the other side asked for.
    """
    try:
        # Its own first: of one that comes from a child process, no code of its class is to be executed.
        named = vars(error).get("retry_after") or getattr(error, "retry_after", None)
        if isinstance(named, int | float) and math.isfinite(named):
            named = timedelta(seconds=min(named, MOST_DELAY.total_seconds()))
    except Exception:  # noqa: BLE001 - what an error has there, or does when it is asked, must not decide
        return None
    if not isinstance(named, timedelta) or named < timedelta(0):
        return None
    return min(named, MOST_DELAY)
