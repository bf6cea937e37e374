"""Ending an attempt: its verdict, what it says, and one write to the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import structlog
from taskiq import TaskiqMiddleware, TaskiqResult

from carillon.errors import DeadlineExceeded
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.records import Finish, State
from carillon.ledger.statements.rows import gate_of
from carillon.middleware.retry import verdict_of
from carillon.platform import Platform
from carillon.telemetry.metrics import Metrics
from carillon.worker.attempt import Attempt
from carillon.worker.execution import (
    FAILED,
    FENCED,
    UNDECIDED,
    Execution,
    RunMessage,
    Verdict,
    assembled,
    error_json,
    text_of,
)
from carillon.worker.hooks import Hooks
from carillon.worker.results import Results

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

#: How long to leave the ledger alone after it did not answer; doubled up to the second.
AWAY_SECONDS = (0.1, 2.0)


class Endings:
    """Writes how attempts of one worker ended. Each attempt ends in the ledger, or is delivered again."""

    def __init__(
        self,
        platform: Platform,
        worker: UUID,
        domain: str,
        *,
        middlewares: Sequence[TaskiqMiddleware],
        metrics: Metrics,
        results: Results,
    ) -> None:
        self._platform = platform
        self._worker = worker
        self._domain = domain
        self.hooks = Hooks(middlewares, metrics)
        self._results = results

    async def conclude(self, attempt: Attempt, returned: object, error: BaseException | None) -> None:
        """Take an attempt from what its code returned or raised to its end in the ledger."""
        execution, message = attempt.execution, attempt.message
        assert message is not None  # noqa: S101 - its code was entered with one
        result: TaskiqResult[Any] = assembled(
            TaskiqResult,
            is_err=error is not None,
            log=None,
            return_value=returned,
            execution_time=time.perf_counter() - attempt.began,
            labels=message.labels,
            error=error,
        )
        if error is not None:
            await self._fail(execution, message, result, error)
        await self.hooks.post_execute(message, result)
        if attempt.reports is not None:
            await attempt.reports.last()
        if await self._end(execution):
            await self._results.keep(message.task_id, result, execution)
        await self.hooks.post_save(message, result)

    async def _fail(
        self, execution: Execution, message: RunMessage, result: TaskiqResult[Any], error: BaseException
    ) -> None:
        execution.run.said.clear()
        execution.result = None
        execution.verdict, execution.error = UNDECIDED, None
        await self.hooks.on_error(message, result, error)
        # In case the hooks that decide and describe have failed themselves.
        if execution.verdict is UNDECIDED:
            execution.verdict = _decided(execution, error)
        execution.error = execution.error or error_json(error)
        if (late := _too_late(execution)) is not None:
            late.__cause__ = result.error = error
            error = late
            execution.verdict, execution.error = FAILED, error_json(late)
        if execution.verdict.state is State.FAILED:
            _say_failure(execution, message.kwargs, error)
        tell = log.error if execution.verdict.state is State.FAILED else log.warning
        tell(f"attempt {execution.verdict.outcome}", error=f"{type(error).__name__}: {text_of(error)}"[:500])

    async def _end(self, execution: Execution) -> bool:
        """Write the end and publish what is said; whether the ledger has what the attempt returned."""
        try:
            finish = await self._finish_of(execution)
            end = await persist(lambda: self._platform.ledger.finish((self._worker, finish)))
        except Exception as error:
            # What it said is no event, or the ledger refused it; without an end the run would say `running` for ever.
            log.exception("end refused by the ledger")
            execution.verdict = FAILED
            await self._end_refused(execution, error)
            return False
        if not end.applied:
            execution.verdict = FENCED
        elif finish.events:
            await self._platform.publish(finish.events)
        if end.limited:
            self._platform.wakeups.tell(gate_of(self._domain))
        if end.awaited:
            await self._platform.ledger.followups.follow([finish.id])
        return end.applied

    async def _end_refused(self, execution: Execution, error: Exception) -> None:
        refused = Finish(
            id=execution.delivery.id,
            attempt=execution.delivery.attempt,
            state=State.FAILED,
            outcome="failed",
            error=error_json(error),
            log=_log_of(execution),
            is_step=execution.delivery.step is not None,
        )
        await persist(lambda: self._platform.ledger.finish((self._worker, refused)))

    async def _finish_of(self, execution: Execution) -> Finish:
        verdict: Verdict = execution.verdict
        envelopes = self._platform.envelopes(execution.run.said, self._domain, execution.delivery.id)
        return Finish(
            id=execution.delivery.id,
            attempt=execution.delivery.attempt,
            state=verdict.state,
            outcome=verdict.outcome,
            result=execution.result,
            error=execution.error,
            log=_log_of(execution),
            run_at=execution.next_run_at,
            uncounted=0 if verdict.counted else 1,
            events=[e.new_event(actor=self._domain, run_id=execution.delivery.id) for e in envelopes],
            answers=await self._platform.answers(envelopes),
            is_step=execution.delivery.step is not None,
        )


def _log_of(execution: Execution) -> str | None:
    return None if execution.run.excerpt is None else str(execution.run.excerpt)


def _decided(execution: Execution, error: BaseException) -> Verdict:
    try:
        return verdict_of(execution, error)
    except Exception:
        log.exception("what the error says to do next cannot be told; the run fails")
        return FAILED


def _too_late(execution: Execution) -> DeadlineExceeded | None:
    """The error of an attempt after which there would be another, were there no deadline before."""
    due, deadline = execution.next_run_at, execution.delivery.deadline_at
    if due is None or deadline is None or due <= deadline:
        return None
    message = f"its next attempt would be due at {_told(due)}, after its deadline, {_told(deadline)}; it failed at once"
    return DeadlineExceeded(message)


def _told(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%F %T} UTC"


def _say_failure(execution: Execution, arguments: Mapping[str, Any], error: BaseException) -> None:
    """Let the run say that it failed, where its task has a word for it."""
    if execution.task is None or execution.task.on_failure is None:
        return
    try:
        execution.run.say(execution.task.on_failure(arguments, error))
    except Exception:
        # The failure itself is in the ledger either way.
        log.exception("failure not said")


async def persist(write: Callable[[], Awaitable[Answer]]) -> Answer:
    """Write until the ledger answers. Meanwhile the delivery stays unacknowledged, and the fence guards the run."""
    pause, longest = AWAY_SECONDS
    while True:
        try:
            return await write()
        except SERVER_AWAY as error:
            log.warning("the ledger does not answer", error=repr(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
