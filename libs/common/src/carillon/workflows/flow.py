"""What the code of a workflow can ask for. Each thing that it asks for is recorded as a step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar, overload
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from taskiq.kicker import AsyncKicker

from carillon import options
from carillon.arguments import json_args
from carillon.bounds import check_span
from carillon.contracts import Event
from carillon.errors import InvalidArgumentsError, OutsideWorkflowError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.run import Run
from carillon.times import times_in
from carillon.workflows.activation import Activation, Asked, Decode
from carillon.workflows.gathering import Gathered, Together
from carillon.workflows.remote import RemoteTask
from carillon.workflows.saga import Saga

if TYPE_CHECKING:
    from carillon.task import Task

Result = TypeVar("Result")
Heard = TypeVar("Heard", bound=Event)
Item = TypeVar("Item")

#: Options of a submit that would make the run of a step somebody else's, too.
_NOT_FOR_STEPS = frozenset({"after", "callback_url", "idempotency_key", "unique"})
#: Characters of what is to be approved.
MOST_QUESTION = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided."""

    approved: bool
    by: str
    reason: str | None
    at: datetime


class Workflow:
    """A workflow, for its code. Ask for it with a keyword-only parameter `flow: Workflow`.

    The code is executed again over its record whenever it goes on: so it has no input and no output, and asks here for
    the time, for random values and for ids.
    """

    def __init__(
        self, activation: Activation, run: Run, *, awaits: Iterable[type[Event]], priority: int, traceparent: str | None
    ) -> None:
        self._activation = activation
        #: The run that this workflow is: its id, labels, cause and deadline.
        self.run = run
        self._awaits = frozenset(awaits)
        self._priority = priority
        self._traceparent = traceparent

    @property
    def id(self) -> UUID:
        """The id of the workflow's run."""
        return self.run.id

    @property
    def is_replaying(self) -> bool:
        """Whether the code does again what it did before; what it logs meanwhile was logged before, too."""
        return self._activation.is_replaying

    def now(self) -> datetime:
        """The moment, as of what the workflow was told last; the same each time that the code is executed again."""
        return self._activation.now

    @cached_property
    def random(self) -> random.Random:
        """Random values that are the same each time; not for secrets."""
        return random.Random(self.run.id.int)  # noqa: S311 - it has to be the same each time

    def uuid(self) -> UUID:
        """A UUIDv4 that is the same each time."""
        return UUID(int=self.random.getrandbits(128), version=4)

    @overload
    def step(
        self, task: Task[..., Coroutine[Any, Any, Result]], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Result]: ...
    @overload
    def step(self, task: RemoteTask[Result], *args: Any, **kwargs: Any) -> asyncio.Future[Result]: ...
    @overload
    def step(
        self, task: AsyncKicker[..., Coroutine[Any, Any, Result]], *args: Any, **kwargs: Any
    ) -> asyncio.Future[Result]: ...
    @overload
    def step(self, task: Task[..., Result], *args: Any, **kwargs: Any) -> asyncio.Future[Result]: ...
    def step(self, task: Any, *args: Any, **kwargs: Any) -> Any:
        """Submit a run of a task with these arguments, and give back what its result is awaited with.

        It begins at once, whether it is awaited or not, so two steps before the first `await` go side by side. With
        `task.options(priority="high")` in place of the task it says how to run; a `RemoteTask` is one of another
        domain. Awaited, it raises `StepFailedError` where the run failed, and `StepCancelledError` where it was
        cancelled. Cancelling what is given back, or a timeout around it, cancels the run.

        Raises `InvalidArgumentsError` for arguments that cannot be kept, and for options that steps do not have.
        """
        return self._step(task, args, kwargs)

    async def sleep(self, span: timedelta | float) -> None:
        """Go on after this span, a timedelta or seconds, as after `asyncio.sleep`.

        Raises `InvalidArgumentsError` for less than nothing and more than a year.
        """
        given = span if isinstance(span, timedelta) else timedelta(seconds=span)
        await asyncio.sleep(check_span("sleep", given).total_seconds())

    async def event(
        self,
        contract: type[Heard],
        *,
        match: Mapping[str, Any] | None = None,
        timeout: timedelta | None = None,
    ) -> Heard:
        """Wait for an event of this contract, and give it back; the first since the workflow was submitted.

        `match` names fields of it, with dots for what is inside, and the values that they have to have. The next wait
        of the same workflow gets the next such event. Raises `TimeoutError` after `timeout`, and `OutsideWorkflowError`
        for a contract that `@tasks.workflow(awaits=[...])` does not name.
        """
        if contract not in self._awaits:
            message = f"{self.run.task} does not say that it awaits {contract.type}; add it to @tasks.workflow(awaits=)"
            raise OutsideWorkflowError(message)
        wanted = _match(match or {})
        heard: Heard = await self._activation.ask(
            Asked(
                kind="event",
                name=contract.type,
                digest=_digest(wanted),
                decode=lambda result: contract.model_validate(result["data"]),
                due_at=self._due(timeout),
                match=wanted,
            )
        )
        return heard

    async def approval(self, question: str, *, timeout: timedelta | None = None) -> Decision:
        """Wait until somebody approves, or refuses, over HTTP, on the page or with `carillon workflows approve`.

        Raises `TimeoutError` after `timeout`.
        """
        if not 0 < len(question) <= MOST_QUESTION or "\0" in question:
            message = f"what is to be approved is a text of 1 to {MOST_QUESTION} characters, without NUL"
            raise InvalidArgumentsError(message)
        asked = Asked(kind="approval", name=question, digest="", decode=_decision, due_at=self._due(timeout))
        decision: Decision = await self._activation.ask(asked)
        return decision

    def repair(self, question: str) -> asyncio.Future[Decision]:
        """Let an operator decide whether to try again what failed for good, or has done it by hand."""
        return self._activation.ask(Asked(kind="repair", name=question[:MOST_QUESTION], digest="", decode=_decision))

    def undoing(self, step: asyncio.Future[Any]) -> AbstractContextManager[None]:
        """Let the step that is begun until the block ends be what takes another one back."""
        return self._activation.undoing(step)

    def stop(self, step: asyncio.Future[Any]) -> None:
        """Cancel the run of a step, and go on waiting for its end."""
        self._activation.stop(step)

    async def map(
        self,
        task: Task[..., Any] | RemoteTask[Any] | Callable[[Item], asyncio.Future[Any]],
        items: Iterable[Item],
        *,
        concurrency: int | None = None,
        need: float = 1.0,
    ) -> Gathered[Any]:
        """A step for each item, at most `concurrency` at once, and what became of them all.

        The item is the task's one argument, and of a `RemoteTask` its arguments by name; where a task takes more, give
        a function that makes the step of an item.
        `need` is the least share of them that has to go well: with 1.0 all, with 0 none. Members that fail do not
        disturb the others; when no more than too few can go well, no other is begun.

        Raises `FanInError` where too few went well, when all that were begun have ended.
        """
        members = list(items)

        def begin(item: Item) -> asyncio.Future[Any]:
            if isinstance(task, RemoteTask):
                return self._step(task, (), dict(item))  # type: ignore[call-overload] # arguments by their names
            if hasattr(task, "task_name"):
                return self._step(task, (item,), {})
            return task(item)

        return await self._together(members, concurrency, need, begin)

    async def gather(self, steps: Iterable[asyncio.Future[Result]], *, need: float = 1.0) -> Gathered[Result]:
        """What became of steps that are under way, when all have ended; `need` as of `map`."""
        return await self._together(list(steps), None, need, lambda step: step)

    def saga(self) -> Saga:
        """Steps that are undone in reverse order when one of them fails: `async with flow.saga() as saga`."""
        return Saga(self)

    async def _together(
        self, members: list[Any], concurrency: int | None, need: float, begin: Callable[[Any], asyncio.Future[Any]]
    ) -> Gathered[Any]:
        together = Together(members, concurrency, need)

        def join(member: Any) -> asyncio.Future[Any]:
            step = begin(member)
            self._activation.join(step, together)
            return step

        return await together.outcome(join)

    def _step(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        declared, labels = _declared(task)
        if isinstance(declared, RemoteTask):
            if args:
                message = f"{declared.task_name} is of another domain, so its arguments must be given by name"
                raise InvalidArgumentsError(message)
            arguments, decode = kwargs, _decoder(declared.returns)
        else:
            arguments, decode = declared.bind(args, kwargs), declared.decode
            if declared.unique is not None:
                message = f"{declared.task_name} is unique, so its run may be another's; a step has one of its own"
                raise OutsideWorkflowError(message)
        kept = json_args(arguments)
        return self._activation.ask(
            Asked(
                kind="task",
                name=declared.task_name,
                digest=_digest(orjson.loads(kept)),
                decode=decode,
                run=lambda seq: self._run_of(declared.task_name, kept, labels, seq),
            )
        )

    def _run_of(self, task: str, args: str, labels: Mapping[str, Any], seq: int) -> NewRun:
        times = times_in(labels, self.now())
        # What cleans up may do so after the deadline: it is often what it cleans up for.
        inherited = None if self._activation.cleans_up else self.run.deadline_at
        return NewRun(
            id=new_id(),
            domain=task.partition(".")[0],
            task=task,
            args=args,
            labels=options.own_labels(labels),
            priority=options.priority_in(labels) if "priority" in labels else self._priority,
            run_at=times.run_at,
            expires_at=times.expires_at,
            deadline_at=options.deadline_of(times.deadline_at, inherited),
            parent_id=self.run.id,
            step=seq,
            actor=f"workflow {self.run.task}",
            traceparent=self._traceparent,
        )

    def _due(self, timeout: timedelta | None) -> datetime | None:
        return None if timeout is None else self.now() + check_span("timeout", timeout)


def _declared(task: Any) -> tuple[Any, Mapping[str, Any]]:
    """The task, and how its run is to run."""
    if isinstance(task, RemoteTask):
        return task, {}
    if isinstance(task, AsyncKicker):
        if taken := sorted(_NOT_FOR_STEPS & task.labels.keys()):
            message = f"the step {task.task_name} has the option {taken[0]}, which steps do not have; leave it out"
            raise InvalidArgumentsError(message)
        return task.broker.local_task_registry[task.task_name], task.labels
    if not hasattr(task, "task_name"):
        message = f"{task!r} is no task; declare it with @tasks.task(), or name it with RemoteTask(...)"
        raise OutsideWorkflowError(message)
    return task, task.labels


def _decoder(returns: Any) -> Decode:
    if returns is Any:
        return lambda result: result
    return TypeAdapter(returns).validate_python


def _decision(result: Mapping[str, Any]) -> Decision:
    at = datetime.fromisoformat(result["at"])
    return Decision(bool(result["approved"]), str(result["by"]), result["reason"], at)


def _match(match: Mapping[str, Any]) -> dict[str, Any]:
    """What an event has to have, as it is recorded; raises `InvalidArgumentsError` for what cannot be."""
    kept: dict[str, Any] = orjson.loads(json_args(dict(match)))
    for name, value in kept.items():
        if not name or "\n" in name or isinstance(value, dict | list):
            message = f"match has {name!r}: {value!r}; it names fields, and their values are texts, numbers or null"
            raise InvalidArgumentsError(message)
    return kept


def _digest(value: object) -> str:
    return sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
