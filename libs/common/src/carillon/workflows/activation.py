"""The code of a workflow while it executes: over what is recorded, and on to where it has to wait.

The record is the list of steps in the order in which the code asked for them. Each says which ends of steps the code
had been told of since the step before, in order; so what is told is told again in that order, one by one, and the code
is turned until it is quiet after each. Ends of which the record does not say that they were told come last, as they
came. Code that then asks for something else than it did has changed, and the workflow fails saying where.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from carillon.errors import DivergedError, OutsideWorkflowError, StepCancelledError, StepFailedError, StuckError
from carillon.ledger.records import NewRun
from carillon.workflows.loop import WorkflowLoop, WorkflowTimer
from carillon.workflows.records import CANCELLATION, MOST_STEPS, History, Kind, NewStep, Step

_GOOD = frozenset({"completed", "partial"})

#: Makes of a step's result, as it is recorded, what the code gets.
Decode = Callable[[Any], Any]


class Group(Protocol):
    """Steps that are awaited together."""

    @property
    def missing(self) -> int:
        """How many more of them have to end before the code can do anything with that; at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the code asks for."""

    kind: Kind
    name: str
    digest: str
    decode: Decode
    #: Of a task: the run that is its step, given its id.
    run: Callable[[int], NewRun] | None = None
    due_at: datetime | None = None
    match: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Awaited:
    """A step of which the code has not been told that it ended."""

    asked: Asked
    future: asyncio.Future[Any] | None
    timer: WorkflowTimer | None = None
    #: Of a task: its run.
    run_id: UUID | None = None
    group: Group | None = None

    @property
    def is_wanted(self) -> bool:
        if self.timer is not None:
            return not self.timer.cancelled()
        return self.future is not None and not self.future.done()


class Activation:
    """Executes the code of a workflow.

    Make one, let it `advance`, read what came of it, and let it `leave`; or keep it where it waits, and let it `resume`
    when there is more to tell, which spares it the way there.
    """

    def __init__(self, history: History, now: datetime) -> None:
        self._history = history
        self._records = {step.seq: step for step in history.steps}
        self._recorded = len(history.steps)
        began = history.steps[0].at if history.steps else now
        self.loop = WorkflowLoop(self, began.timestamp())  # type: ignore[abstract] # the rest refuses
        self._asked_for = 0
        self._awaited: dict[int, _Awaited] = {}
        self._places: dict[asyncio.Future[Any], int] = {}
        #: The ends that were told since the step before, and all of them.
        self._saw: list[int] = []
        self._told: set[int] = set()
        self._fault: BaseException | None = None
        self._main: asyncio.Task[Any] | None = None
        self._is_left = False
        #: The step that is taken back by what is asked for just now.
        self._undoes: int | None = None
        #: How many ends have to be told, of all that ever are, before the code can do anything.
        self.wake_at = 0
        #: What the code asked for that is not recorded yet.
        self.new: list[NewStep] = []
        #: The steps that it does not wait for any more, and of those that are tasks the runs.
        self.voided: list[int] = []
        self.unwanted: list[UUID] = []

    @property
    def is_replaying(self) -> bool:
        """Whether the code does again what it did before."""
        return self._asked_for < self._recorded

    @property
    def now(self) -> datetime:
        """The moment, by the workflow's clock."""
        return datetime.fromtimestamp(self.loop.moment, UTC)

    @property
    def is_over(self) -> bool:
        """Whether the code has ended, and does not wait."""
        return self._fault is not None or (self._main is not None and self._main.done())

    @property
    def knows_cancel(self) -> bool:
        """Whether the code was told that somebody wants it cancelled."""
        return CANCELLATION in self._told

    @property
    def cleans_up(self) -> bool:
        """Whether what the code asks for now takes back what it did, or comes after its end was asked for."""
        return self._undoes is not None or self.knows_cancel

    def result(self) -> Any:
        """What the code returned; raises what it raised, or what is wrong with it."""
        if self._fault is not None:
            raise self._fault
        assert self._main is not None  # noqa: S101 - it is over
        return self._main.result()

    def advance(self, code: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Execute the code until it has ended or waits."""
        with self.loop.entered(), self._caught():
            self._main = self.loop.create_task(code())
            self.loop.turn()
            self._again()
            self._on()

    def resume(self, fresh: History) -> None:
        """Go on where it waits: `fresh` has, of the steps that it awaits, those that have ended."""
        self.new, self.voided, self.unwanted = [], [], []
        self._history = fresh
        self._records |= {step.seq: step for step in fresh.steps}
        with self.loop.entered(), self._caught():
            self._on()

    def leave(self) -> None:
        """Give up the code where it waits. It cannot go on after that."""
        self._is_left = True
        with self.loop.entered():
            self.loop.leave()

    @property
    def awaits(self) -> list[int]:
        """The steps whose ends it was not told."""
        return list(self._awaited)

    def ask(self, asked: Asked) -> asyncio.Future[Any]:
        """Take a step that the code asks for; the future is done when its end is told."""
        future = self.loop.create_future()
        self._places[future] = seq = self._ask(asked, _Awaited(asked, future))
        future.add_done_callback(lambda done: self._void(seq) if done.cancelled() else None)
        return future

    def join(self, step: asyncio.Future[Any], group: Group) -> None:
        """Let a step be one of those that are awaited together."""
        one = self._awaited.get(self._places.get(step, 0))
        if one is not None:
            one.group = group

    def stop(self, step: asyncio.Future[Any]) -> None:
        """Cancel the run of a step whose end is awaited all the same."""
        one = self._awaited.get(self._places.get(step, 0))
        if one is not None and one.run_id is not None and not self.is_replaying:
            self.unwanted.append(one.run_id)

    @contextmanager
    def undoing(self, step: asyncio.Future[Any]) -> Iterator[None]:
        """Let what is asked for until the block ends be what takes a step back."""
        self._undoes = self._places.get(step)
        try:
            yield
        finally:
            self._undoes = None

    def set_timer(self, timer: WorkflowTimer) -> None:
        """Take a sleep or a timeout."""
        due_at = datetime.fromtimestamp(timer.when(), UTC)
        asked = Asked(kind="sleep", name="sleep", digest="", decode=lambda _: None, due_at=due_at)
        timer.seq = self._ask(asked, _Awaited(asked, None, timer))

    def drop_timer(self, timer: WorkflowTimer) -> None:
        """Forget a sleep or a timeout."""
        self._void(timer.seq)

    @contextmanager
    def _caught(self) -> Iterator[None]:
        """Take for a fault what asyncio lets through, such as `sys.exit()`."""
        try:
            yield
        except BaseException as fault:  # noqa: BLE001 - it ends the run, and not its worker
            self._fault = self._fault or fault

    def _again(self) -> None:
        """Let the code do again what is recorded."""
        for step in self._history.steps:
            for seq in step.saw:
                self._tell(seq)
            if self._asked_for < step.seq and self._fault is None:
                does = "it ends before that" if self.is_over else "it waits for something else"
                self._fault = _diverged(step, f"now {does}")
            if self._fault is not None:
                return

    def _on(self) -> None:
        """Tell the code what it was not told yet, in the order in which it came, until it has ended or waits."""
        if self._fault is None:
            self._tell_fresh()
        if not self.is_over:
            self._wait()

    def _tell_fresh(self) -> None:
        if self._history.cancel is not None and not self.knows_cancel:
            self._tell(CANCELLATION)
        ended = [step for step in self._history.steps if step.outcome is not None and step.seq not in self._told]
        for step in sorted(ended, key=lambda step: (step.ended_at or step.at, step.seq)):
            if self.is_over:
                return
            one = self._awaited.get(step.seq)
            if one is not None and one.is_wanted:
                self._tell(step.seq)

    def _wait(self) -> None:
        """Find out for how many ends it waits."""
        awaited = [one for one in self._awaited.values() if one.is_wanted]
        if not awaited:
            message = "the workflow waits for nothing that could happen; does it await a future of its own?"
            self._fault = StuckError(message)
            return
        missing = min(1 if one.group is None else one.group.missing for one in awaited)
        self.wake_at = self._history.told + missing

    def _tell(self, seq: int) -> None:
        self._told.add(seq)
        self._saw.append(seq)
        if seq == CANCELLATION:
            assert self._main is not None  # noqa: S101 - it executes
            self._main.cancel()
        else:
            self._tell_end(self._records[seq])
        self.loop.turn()

    def _tell_end(self, step: Step) -> None:
        if step.ended_at is not None:
            self.loop.moment = max(self.loop.moment, step.ended_at.timestamp())
        one = self._awaited.pop(step.seq, None)
        if one is None or not one.is_wanted:
            return
        if one.timer is not None:
            self.loop.ring(one.timer)
        elif one.future is not None:
            _settle(one.future, one.asked, step)

    def _ask(self, asked: Asked, awaited: _Awaited) -> int:
        if self._is_left:
            # Whatever is in a `finally` is entered when the code is given up, and ends like everything else in it.
            raise GeneratorExit
        self._asked_for = seq = self._asked_for + 1
        if seq > MOST_STEPS:
            message = f"a workflow has at most {MOST_STEPS:,} steps; make a workflow of its own of a part of it"
            self._raise(OutsideWorkflowError(message))
        step = self._records.get(seq)
        if step is None:
            self._note(seq, asked, awaited)
        else:
            self._compare(step, asked)
            awaited.run_id = step.run_id
        self._saw.clear()
        self._awaited[seq] = awaited
        return seq

    def _note(self, seq: int, asked: Asked, awaited: _Awaited) -> None:
        run = None if asked.run is None else asked.run(seq)
        awaited.run_id = None if run is None else run.id
        self.new.append(
            NewStep(
                seq=seq,
                kind=asked.kind,
                name=asked.name,
                saw=tuple(self._saw),
                at=self.now,
                digest=asked.digest,
                run=run,
                undoes=self._undoes,
                due_at=asked.due_at,
                match=asked.match,
            )
        )

    def _compare(self, step: Step, asked: Asked) -> None:
        if (step.kind, step.name) != (asked.kind, asked.name):
            self._raise(_diverged(step, f"now it is the {_word(asked.kind, asked.name)}"))
        elif step.digest != asked.digest:
            self._raise(_diverged(step, "now it has other arguments"))
        elif list(step.saw) != self._saw:
            self._raise(_diverged(step, f"it came after {_ends(step.saw)}, and now comes after {_ends(self._saw)}"))

    def _raise(self, fault: DivergedError | OutsideWorkflowError) -> None:
        """Fail, whatever the code does with the error."""
        self._fault = self._fault or fault
        raise fault

    def _void(self, seq: int) -> None:
        one = self._awaited.pop(seq, None)
        step = self._records.get(seq)
        if self._is_left or one is None or (step is not None and step.outcome is not None):
            return
        self.voided.append(seq)
        if one.run_id is not None:
            self.unwanted.append(one.run_id)


def _diverged(step: Step, how: str) -> DivergedError:
    return DivergedError(
        f"step {step.seq} was the {_word(step.kind, step.name)}, and {how}: the code is not what it was, or asks for "
        "the time, random values or the world outside itself (use flow.now(), flow.random and steps). Deploy the code "
        "that the workflow began with, keep it as an earlier version, or fork it from a step before"
    )


def _settle(future: asyncio.Future[Any], asked: Asked, step: Step) -> None:
    if step.outcome in _GOOD:
        try:
            future.set_result(asked.decode(step.result))
        except Exception as error:  # noqa: BLE001 - the step's result is what its task made of it
            told = {"type": type(error).__name__, "message": f"its result is not what was expected: {error}"}
            future.set_exception(StepFailedError(step.name, step.run_id, told, may_have_effect=True))
    elif step.outcome == "expired":
        future.set_exception(TimeoutError(f"the {_word(step.kind, step.name)} did not come in time"))
    else:
        kind = StepCancelledError if step.outcome == "cancelled" else StepFailedError
        # What an earlier attempt did the last one does not know.
        is_known = step.started_at is None or (step.attempt == 1 and (step.error or {}).get("permanent", False))
        future.set_exception(kind(step.name, step.run_id, step.error or {}, may_have_effect=not is_known))


def _word(kind: str, name: str) -> str:
    return name if kind == "sleep" else f"{kind} {name!r}"


def _ends(saw: Sequence[int]) -> str:
    told = ["the cancellation" if seq == CANCELLATION else f"the end of step {seq}" for seq in saw]
    return ", ".join(told) or "no end"
