"""The receiver: starts an attempt, executes it between the middlewares' hooks, ends it in the ledger, acknowledges."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import UUID

import structlog
from taskiq import TaskiqMiddleware, TaskiqResult

from carillon.contracts import Event
from carillon.errors import Cancel, UnknownTaskError
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.records import Claimed, Delivery, Finish, Priority, State
from carillon.middleware.retry import verdict_of
from carillon.platform import Platform
from carillon.run import Run
from carillon.tasks import Task
from carillon.telemetry.metrics import Metrics
from carillon.transports.port import Acknowledge
from carillon.worker.execution import (
    FAILED,
    FENCED,
    UNDECIDED,
    Execution,
    RunMessage,
    Verdict,
    assembled,
    error_json,
    result_json,
)
from carillon.worker.hooks import Hooks
from carillon.worker.results import Results

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

#: How long to leave the ledger alone after it did not answer; doubled up to the second.
AWAY_SECONDS = (0.1, 2.0)
#: How far the clocks of machines that work together may be apart.
DRIFT_SECONDS = 5.0


class Receiver:
    """Executes deliveries of one domain. There is no early exit without an end in the ledger or a redelivery."""

    def __init__(
        self,
        platform: Platform,
        worker: UUID,
        domain: str,
        tasks: Mapping[str, Task[..., Any]],
        resources: Mapping[type, object],
        *,
        middlewares: Sequence[TaskiqMiddleware],
        metrics: Metrics,
        results: Results,
        concurrency: int,
    ) -> None:
        self._platform = platform
        self.worker = worker
        self._domain = domain
        self._tasks = tasks
        self._resources = resources
        self._hooks = Hooks(middlewares, metrics)
        self._metrics = metrics
        self._results = results
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix=f"{domain} task")
        #: What executes now, by run.
        self.running: dict[UUID, asyncio.Task[Any]] = {}
        #: Those of them whose code is executing at this moment.
        self._code: dict[UUID, Execution] = {}
        #: By priority, the latest moment at which a delivery that came here was given to the transport.
        self.watermarks = dict.fromkeys(Priority, 0.0)

    async def execute(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        """Take one delivery to its end."""
        if delivery.given_at <= time.time() + DRIFT_SECONDS:
            # A moment yet to come says nothing about order: its sender's clock is wrong.
            priority = Priority(min(delivery.priority, Priority.URGENT))
            self.watermarks[priority] = max(self.watermarks[priority], delivery.given_at)
        task = asyncio.current_task()
        if delivery.id in self.running or task is None:
            # A second delivery of what is executing here; the first will end it.
            self._metrics.fenced.inc()
            await acknowledge()
            return
        self.running[delivery.id] = task
        try:
            if isinstance(delivery, Claimed) or await self._start(delivery):
                await self._attempt(delivery)
            else:
                self._metrics.fenced.inc()
            await acknowledge()
        finally:
            del self.running[delivery.id]

    def cancel(self, run: UUID, reason: str) -> bool:
        """Stop the code of an attempt that executes here, so that its run ends cancelled; False when there is none.

        The code is cancelled as asyncio cancels, and may clean up; what swallows that, and returns, has completed. A
        plain function goes on in its thread, whose result nobody takes any more.
        """
        execution = self._code.get(run)
        if execution is None or execution.unwanted is not None:
            return False
        execution.unwanted = reason
        return self.running[run].cancel()

    async def _start(self, delivery: Delivery) -> bool:
        attempt = (delivery.id, delivery.attempt, self.worker)
        return await _persist(lambda: self._platform.ledger.start(attempt))

    async def _attempt(self, delivery: Delivery) -> None:
        execution = self._execution(delivery)
        run_id = str(delivery.id)
        structlog.contextvars.bind_contextvars(run=run_id, task=delivery.task, attempt=delivery.attempt)
        message = assembled(
            RunMessage,
            task_id=run_id,
            task_name=delivery.task,
            labels=dict(delivery.labels),
            labels_types=None,
            args=[],
            kwargs=dict(delivery.args),
            execution=execution,
        )
        message = await self._hooks.pre_execute(message)
        result = await self._call(execution, message)
        await self._hooks.post_execute(message, result)
        if await self._end(execution):
            await self._results.keep(run_id, result, execution.verdict)
        await self._hooks.post_save(message, result)

    def _execution(self, delivery: Delivery) -> Execution:
        run = Run(
            id=delivery.id,
            task=delivery.task,
            domain=self._domain,
            attempt=delivery.attempt,
            labels=delivery.labels,
            cause=delivery.cause,
        )
        return Execution(delivery, self._tasks.get(delivery.task), run)

    async def _call(self, execution: Execution, message: RunMessage) -> TaskiqResult[Any]:
        began = time.perf_counter()
        returned: Any = None
        error: BaseException | None = None
        try:
            self._code[execution.delivery.id] = execution
            try:
                returned = await self._run_task(execution, message.kwargs)
            finally:
                del self._code[execution.delivery.id]
            if isinstance(returned, Event):
                execution.run.say(returned)
            execution.result = result_json(returned)
        except asyncio.CancelledError:
            if execution.unwanted is None or (task := asyncio.current_task()) is None:
                # The drain: the run is handed back and not ended.
                raise
            task.uncancel()
            error = Cancel(execution.unwanted)
        except BaseException as raised:  # noqa: BLE001 - whatever a task raises must end in the ledger
            error = raised
        result: TaskiqResult[Any] = assembled(
            TaskiqResult,
            is_err=error is not None,
            log=None,
            return_value=returned,
            execution_time=time.perf_counter() - began,
            labels=message.labels,
            error=error,
        )
        if error is not None:
            await self._fail(execution, message, result, error)
        return result

    async def _fail(
        self, execution: Execution, message: RunMessage, result: TaskiqResult[Any], error: BaseException
    ) -> None:
        execution.run.said.clear()
        execution.result = None
        execution.verdict, execution.error = UNDECIDED, None
        await self._hooks.on_error(message, result, error)
        # In case the hooks that decide and describe have failed themselves.
        if execution.verdict is UNDECIDED:
            execution.verdict = verdict_of(execution, error)
        execution.error = execution.error or error_json(error)
        if execution.verdict.state is State.FAILED:
            _say_failure(execution, message.kwargs, error)
        tell = log.error if execution.verdict.state is State.FAILED else log.warning
        tell(f"attempt {execution.verdict.outcome}", error=f"{type(error).__name__}: {error}"[:500])

    async def _run_task(self, execution: Execution, kwargs: Mapping[str, Any]) -> Any:
        task = execution.task
        if task is None:
            message = (
                f"{execution.delivery.task} is not a task of {self._domain}; was it renamed, or is the worker older?"
            )
            raise UnknownTaskError(message)
        arguments = task.validated(kwargs)
        for name, kind in task.needs.items():
            arguments[name] = execution.run if kind is Run else self._resources[kind]
        try:
            async with asyncio.timeout(task.timeout.total_seconds()) as deadline:
                if task.is_async:
                    return await task.original_func(**arguments)
                call = contextvars.copy_context().run
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, lambda: call(task.original_func, **arguments))
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"it ran longer than its timeout of {task.timeout.total_seconds():g} s"
            raise TimeoutError(message) from None

    async def _end(self, execution: Execution) -> bool:
        """Write the end and publish what is said; whether the ledger has what the attempt returned."""
        try:
            finish = await self._finish_of(execution)
            end = await _persist(lambda: self._platform.ledger.finish((self.worker, finish)))
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
        if end.awaited:
            await self._platform.follow_up([finish.id])
        return end.applied

    async def _end_refused(self, execution: Execution, error: Exception) -> None:
        refused = Finish(
            id=execution.delivery.id,
            attempt=execution.delivery.attempt,
            state=State.FAILED,
            outcome="failed",
            error=error_json(error),
        )
        await _persist(lambda: self._platform.ledger.finish((self.worker, refused)))

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
            run_at=execution.next_run_at,
            uncounted=0 if verdict.counted else 1,
            events=[e.new_event(actor=self._domain, run_id=execution.delivery.id) for e in envelopes],
            answers=await self._platform.answers(envelopes),
        )


def _say_failure(execution: Execution, arguments: Mapping[str, Any], error: BaseException) -> None:
    """Let the run say that it failed, where its task has a word for it."""
    if execution.task is None or execution.task.on_failure is None:
        return
    try:
        execution.run.say(execution.task.on_failure(arguments, error))
    except Exception:
        # The failure itself is in the ledger either way.
        log.exception("failure not said")


async def _persist(write: Callable[[], Awaitable[Answer]]) -> Answer:
    """Write until the ledger answers. Meanwhile the delivery stays unacknowledged, and the fence guards the run."""
    pause, longest = AWAY_SECONDS
    while True:
        try:
            return await write()
        except SERVER_AWAY as error:
            log.warning("the ledger does not answer", error=repr(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
