"""Workflows of a worker: each of their attempts reads the record, executes the code over it, and lets it wait again."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn
from uuid import UUID

import asyncpg
import structlog

from carillon import clock
from carillon.errors import Cancelled, DeadlineExceeded, DivergedError, Snooze
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.statements.rows import clock_of
from carillon.platform import Platform
from carillon.stored_results import ResultGoneError, stored_in
from carillon.worker.ending import persist
from carillon.worker.execution import Execution
from carillon.workflows.activation import Activation
from carillon.workflows.declared import WorkflowTask
from carillon.workflows.flow import Workflow
from carillon.workflows.records import History, Parking, Step

log = structlog.get_logger(__name__)

#: A run of a version that this worker does not know yet is left to the workers that do.
NEWER = timedelta(seconds=5)
#: Code of a workflow that executes for longer does something that belongs into a task, and nothing else can go on.
LONG_SECONDS = 1.0

#: Workflows that wait in a worker's memory, some 20 KiB each; others are executed over their record.
KEPT = 1_000

#: What a workflow returned; raises what it raised.
Outcome = Callable[[], Any]


class Activations:
    """Lets the workflows of one worker go on, each until it has ended or waits.

    The last `kept` that wait stay where they are, in memory: when it is their turn again, and nobody else had them
    meanwhile, they are told what is new, and go on. All others, and all after a crash, are executed over their record.
    """

    def __init__(self, platform: Platform, worker: UUID, domain: str, *, kept: int = KEPT) -> None:
        self._platform = platform
        self._ledger = platform.ledger.workflows
        self._worker = worker
        self._domain = domain
        self._most = kept
        #: By the run, oldest first: what waits, and the attempt in which it goes on.
        self._waiting: OrderedDict[UUID, tuple[Activation, int]] = OrderedDict()

    async def advance(self, execution: Execution) -> Outcome | None:
        """Let a workflow go on; returns how it ended, and None where it waits, which the ledger knows then."""
        try:
            activation, history, code = await self._go_on(execution)
            if activation.is_over:
                activation.leave()
                return _outcome(activation, history)
            await self._park(execution, code, activation, history)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it ends the run
            return _raising(error)
        return None

    def close(self) -> None:
        """Give up what waits in memory."""
        while self._waiting:
            self._waiting.popitem()[1][0].leave()

    async def _go_on(self, execution: Execution) -> tuple[Activation, History, WorkflowTask[..., Any]]:
        delivery = execution.delivery
        waiting, attempt = self._waiting.pop(delivery.id, (None, 0))
        if waiting is not None and attempt == delivery.attempt:
            fresh = await self._whole(await persist(lambda: self._ledger.fresh((delivery.id, waiting.awaits))))
            with _timed():
                waiting.resume(fresh)
            return waiting, fresh, _code_for(execution, fresh)
        if waiting is not None:
            waiting.leave()
        history = History()
        if delivery.attempt > 1:
            history = await self._whole(await persist(lambda: self._ledger.history(delivery.id)))
        code = _code_for(execution, history)
        return self._activate(execution, code, history), history, code

    async def _whole(self, history: History) -> History:
        """What is recorded, with the results that are too large for a row."""
        large = [step for step in history.steps if step.run_id is not None and stored_in(step.run_id, step.result)]
        if not large:
            return history
        read = {step.seq: await self._read(step) for step in large}
        return replace(history, steps=[read.get(step.seq, step) for step in history.steps])

    async def _read(self, step: Step) -> Step:
        """A step with its result, which is too large for a row."""
        assert step.run_id is not None  # noqa: S101 - it lies under the run's id
        try:
            return replace(step, result=await self._platform.stored_results.value(step.run_id, step.result))
        except ResultGoneError as error:
            return replace(step, outcome="failed", error={"type": "ResultGoneError", "message": str(error)})

    def _activate(self, execution: Execution, code: WorkflowTask[..., Any], history: History) -> Activation:
        arguments = code.validated(execution.delivery.args)
        activation = Activation(history, clock.now())
        arguments[code.parameter] = Workflow(
            activation,
            execution.run,
            awaits=code.awaits,
            priority=execution.delivery.priority,
            traceparent=execution.delivery.traceparent,
        )
        with _timed():
            activation.advance(lambda: code.original_func(**arguments))
        return activation

    async def _park(
        self, execution: Execution, code: WorkflowTask[..., Any], activation: Activation, history: History
    ) -> None:
        delivery = execution.delivery
        if activation.unwanted:
            await persist(lambda: self._ledger.stop(activation.unwanted, delivery.id))
        parking = Parking(
            id=delivery.id,
            attempt=delivery.attempt,
            wake_at=activation.wake_at,
            knows_cancel=activation.knows_cancel,
            origin=_origin(code, history),
            steps=activation.new,
            voided=activation.voided,
        )
        if not await persist(lambda: self._platform.park(self._worker, parking)):
            activation.leave()
            return
        self._waiting[delivery.id] = activation, delivery.attempt + 1
        while len(self._waiting) > self._most:
            self._waiting.popitem(last=False)[1][0].leave()
        await self._see_to(delivery.id, parking)

    async def _see_to(self, workflow: UUID, parking: Parking) -> None:
        """What follows when a workflow waits."""
        if any(step.due_at is not None for step in parking.steps):
            self._platform.wakeups.tell(clock_of(self._domain))
        if any(step.kind == "event" for step in parking.steps):
            try:
                await self._ledger.look_back([workflow])
            except (*SERVER_AWAY, asyncpg.PostgresError) as error:
                log.warning("a workflow waits for the sweeper to be given its events", error=repr(error))


@contextmanager
def _timed() -> Iterator[None]:
    began = time.perf_counter()
    yield
    if (seconds := time.perf_counter() - began) > LONG_SECONDS:
        log.warning("workflow's own code took long; let a task do that", seconds=round(seconds, 3))


def _code_for(execution: Execution, history: History) -> WorkflowTask[..., Any]:
    """The code of the version that the run began with."""
    task = execution.task
    assert isinstance(task, WorkflowTask)  # noqa: S101 - the receiver looks
    if history.origin is None:
        return task
    version = int(history.origin["version"])
    if version > task.version:
        raise Snooze(NEWER, f"it began with version {version}, and this worker has {task.version} only")
    kept = task.at(version)
    if kept is None:
        message = (
            f"the workflow began with version {version} of {task.task_name}, which this worker does not have any more; "
            f"keep that beside version {task.version} with @{task.function_name}.earlier(version={version}), and fork "
            "this run from its last step"
        )
        raise DivergedError(message)
    return kept


def _origin(code: WorkflowTask[..., Any], history: History) -> dict[str, Any]:
    """What a run began with, and at which step it went on in other code, which asked for the same steps so far."""
    origin = dict(history.origin or {"version": code.version, "code": code.code})
    changed: Sequence[Any] = origin.get("changed", ())
    latest = changed[-1]["code"] if changed else origin["code"]
    if latest != code.code:
        step = len(history.steps) + 1
        log.warning("workflow goes on in changed code", task=code.task_name, step=step)
        origin["changed"] = [*changed, {"code": code.code, "step": step}]
    return origin


def _outcome(activation: Activation, history: History) -> Outcome:
    def outcome() -> Any:
        try:
            return activation.result()
        except asyncio.CancelledError as error:
            raise _meaning(history) from error

    return outcome


def _meaning(history: History) -> Exception:
    """What a run ends with whose code ended cancelled."""
    if history.cancel is None:
        return RuntimeError("its code was cancelled from within: it awaited something cancelled")
    message = str(history.cancel.get("message", "cancelled"))
    return DeadlineExceeded(message) if history.cancel.get("type") == "DeadlineExceeded" else Cancelled(message)


def _raising(error: Exception) -> Outcome:
    def outcome() -> NoReturn:
        raise error

    return outcome
