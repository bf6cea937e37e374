"""The receiver: starts an attempt, executes it between the middlewares' hooks, ends it in the ledger, acknowledges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog
from taskiq import TaskiqMiddleware

from carillon import clock
from carillon.contracts import Event
from carillon.errors import Cancelled, Snooze, UnknownTaskError
from carillon.ledger.records import Claimed, Delivery, Priority
from carillon.partial import Partial
from carillon.platform import Platform
from carillon.policies import Policies
from carillon.run import Run, attempted_run, current_run
from carillon.stored_results import is_large
from carillon.task import Task
from carillon.telemetry.metrics import Metrics
from carillon.transports.port import Acknowledge
from carillon.worker.activations import KEPT, Activations
from carillon.worker.attempt import Attempt, overrun
from carillon.worker.children import Children
from carillon.worker.ending import Endings, persist
from carillon.worker.execution import PARTIAL, Execution, RunMessage, assembled, result_json
from carillon.worker.reports import Reports
from carillon.worker.results import Results
from carillon.worker.threads import Threads
from carillon.workflows.declared import WorkflowTask

log = structlog.get_logger(__name__)

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
        kept: int = KEPT,
    ) -> None:
        self._platform = platform
        self.worker = worker
        self.domain = domain
        self._tasks = tasks
        self.policies = Policies(platform, metrics)
        self._resources = {Policies: self.policies, **resources}
        self._metrics = metrics
        self._endings = Endings(platform, worker, domain, middlewares=middlewares, metrics=metrics, results=results)
        self._workflows = Activations(platform, worker, domain, kept=kept)
        self._threads = Threads(domain)
        settings = platform.settings
        self._children = Children(
            domain, most=concurrency, style=settings.carillon_log_format, level=settings.carillon_log_level
        )
        #: What executes now, by run.
        self.running: dict[UUID, asyncio.Task[Any]] = {}
        self._attempts: dict[UUID, Attempt] = {}
        #: What has ended in the ledger, while its code goes on and keeps its slot.
        self._given_up: dict[UUID, Attempt] = {}
        #: By priority, the latest moment at which a delivery that came here was given to the transport.
        self.watermarks = dict.fromkeys(Priority, 0.0)

    async def execute(self, delivery: Delivery, acknowledge: Acknowledge) -> None:
        """Take one delivery to its end. It returns when the code has really ended, also when it was given up before."""
        if delivery.given_at <= time.time() + DRIFT_SECONDS:
            # A moment yet to come says nothing about order: its sender's clock is wrong.
            priority = Priority(min(delivery.priority, Priority.URGENT))
            self.watermarks[priority] = max(self.watermarks[priority], delivery.given_at)
        task = asyncio.current_task()
        if task is None or (delivery.id in self.running and not await self._is_next(delivery)):
            # A second delivery of what is executing here; the first will end it.
            self._metrics.fenced.inc()
            await acknowledge()
            return
        attempt = Attempt(self._execution(delivery), acknowledge, self._give_up)
        self.running[delivery.id] = task
        self._attempts[delivery.id] = attempt
        try:
            if isinstance(delivery, Claimed) or await self._start(delivery):
                await self._go_on(attempt)
            else:
                self._metrics.fenced.inc()
            if attempt.given_up_at is None:
                await acknowledge()
        finally:
            if attempt.given_up_at is None:
                self._forget(delivery.id)
            else:
                del self._given_up[delivery.id]

    @property
    def has_workflows(self) -> bool:
        """Whether workflows are among the tasks."""
        return any(isinstance(task, WorkflowTask) for task in self._tasks.values())

    def cancel(self, run: UUID, reason: str) -> bool:
        """Cancel a run if an attempt of it executes here: True when its code was told, and False when there is none.

        The code may clean up for as long as its task's `grace`; then the run ends cancelled with the reason. Where the
        code returns a result all the same, the run has completed, and the result is kept.
        """
        attempt = self._attempts.get(run)
        if attempt is None or not attempt.may_be_stopped:
            return False
        attempt.stop(Cancelled(reason))
        return True

    async def obey(self) -> None:
        """Cancel what somebody wants cancelled, as the ledger says."""
        if self.running:
            for run, reason in await self._platform.ledger.steering.wanted(list(self.running)):
                self.cancel(run, reason)

    async def close(self) -> None:
        """Let go of the threads, where what still runs goes on, and end the child processes."""
        self._workflows.close()
        self._threads.close()
        await self._children.close()

    async def _is_next(self, delivery: Delivery) -> bool:
        """Whether this is the attempt after the one in hand, whose end the ledger has; then that is waited for."""
        while (in_hand := self._attempts.get(delivery.id)) is not None:
            if delivery.attempt <= in_hand.execution.delivery.attempt:
                return False
            await asyncio.wait({self.running[delivery.id]})
        return True

    def _forget(self, run: UUID) -> None:
        del self.running[run]
        del self._attempts[run]

    async def _start(self, delivery: Delivery) -> bool:
        attempt = (delivery.id, delivery.attempt, self.worker)
        return await persist(lambda: self._platform.ledger.start(attempt))

    async def _go_on(self, attempt: Attempt) -> None:
        attempted_run.set(attempt.execution.run)
        if isinstance(attempt.execution.task, WorkflowTask):
            attempt.workflow = await self._workflows.advance(attempt.execution)
            if attempt.workflow is None:
                # It waits, and this attempt is over.
                return
        await self._attempt(attempt)

    async def _attempt(self, attempt: Attempt) -> None:
        execution = attempt.execution
        delivery, run_id = execution.delivery, str(execution.delivery.id)
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
        attempt.message = message = await self._endings.hooks.pre_execute(message)
        attempt.began = time.perf_counter()
        returned: Any = None
        error: BaseException | None = None
        try:
            returned = await self._run_task(attempt, message.kwargs)
            if attempt.given_up_at is None:
                if isinstance(returned, Partial):
                    returned = _part_of(execution, returned)
                if isinstance(returned, Event):
                    execution.run.say(returned)
                execution.result = result_json(returned)
                if is_large(execution.result):
                    await self._store(execution, execution.result)
        except asyncio.CancelledError:
            # The worker drains: the run is handed back and not ended.
            if attempt.reports is not None:
                attempt.reports.drop()
            if attempt.given_up_at is None:
                raise
        except BaseException as raised:  # noqa: BLE001 - whatever a task raises must end in the ledger
            error = raised
        if attempt.given_up_at is not None:
            after = round(clock.monotonic() - attempt.given_up_at, 3)
            log.warning("abandoned code ended, its slot is free", seconds=after, error=repr(error)[:500])
            return
        attempt.is_over = True
        await self._endings.conclude(attempt, returned, error)

    async def _store(self, execution: Execution, result: str) -> None:
        """Put a result that is too large for its row into storage; raises `TransientError` where that is away."""
        run, attempt = execution.delivery.id, execution.delivery.attempt
        execution.result = await self._platform.stored_results.put(run, attempt, result)
        execution.is_stored = True

    def _execution(self, delivery: Delivery) -> Execution:
        run = Run(
            id=delivery.id,
            task=delivery.task,
            domain=self.domain,
            attempt=delivery.attempt,
            labels=delivery.labels,
            cause=delivery.cause,
            deadline_at=delivery.deadline_at,
        )
        return Execution(delivery, self._tasks.get(delivery.task), run)

    async def _run_task(self, attempt: Attempt, kwargs: Mapping[str, Any]) -> Any:
        if attempt.workflow is not None:
            return attempt.workflow()
        execution = attempt.execution
        task = execution.task
        if task is None:
            message = (
                f"{execution.delivery.task} is not a task of {self.domain}; was it renamed, or is the worker older?"
            )
            raise UnknownTaskError(message)
        if (remains := self._given_up.get(execution.delivery.id)) is not None:
            raise Snooze(overrun(remains), "the code of an attempt that was given up still runs in this worker")
        arguments = task.validated(kwargs)
        if task.process:
            # It is told as JSON what was found to fit here.
            self._reporting(attempt)
            return await attempt.run(task, kwargs, self._threads, self._children)
        for name, kind in task.needs.items():
            if kind is Run:
                arguments[name] = self._reporting(attempt)
            else:
                arguments[name] = self._resources[kind]
        return await attempt.run(task, arguments, self._threads, None)

    def _reporting(self, attempt: Attempt) -> Run:
        """The run, with somebody who listens to what it reports. A task that does not ask for its run costs none."""
        run, number = attempt.execution.run, attempt.execution.delivery.attempt

        async def write(report: str) -> None:
            await self._platform.ledger.progress((self.worker, run.id, number, report))

        attempt.reports = Reports(run, write)
        run.listen = attempt.reports.heard
        return run

    def _give_up(self, attempt: Attempt, error: BaseException) -> None:
        """End an attempt whose code does not."""
        execution = attempt.execution
        run, name = execution.delivery.id, execution.delivery.task
        self._metrics.abandoned.labels(name).inc()
        log.error("attempt abandoned, its code keeps its slot", reason=str(error)[:500])
        # What its code says from now on is not said.
        execution.run = replace(execution.run, said=[])
        self._given_up[run] = attempt
        self.running[run] = asyncio.get_running_loop().create_task(
            self._end_given_up(attempt, error), name=f"end of {name}"
        )

    async def _end_given_up(self, attempt: Attempt, error: BaseException) -> None:
        try:
            await self._endings.conclude(attempt, None, error)
            await attempt.acknowledge()
        finally:
            self._forget(attempt.execution.delivery.id)


def _part_of(execution: Execution, returned: Partial[Any]) -> Any:
    """The value of what is only a part; the run ends `partial`, and its log says why."""
    execution.verdict = PARTIAL
    token = current_run.set(execution.run)
    try:
        log.warning("the run is partial", reason=str(returned.reason)[:500])
    finally:
        current_run.reset(token)
    return returned.value
