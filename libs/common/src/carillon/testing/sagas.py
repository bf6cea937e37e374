"""Checking a saga: every step fails in every way, and at every moment of that its worker dies; what is left then?

Either all that an undisturbed run leaves, or nothing of it: whatever else is found is a fault of the saga, such as a
compensation that is missing, that takes back too much, or that is not safe to run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from carillon.errors import CarillonError, PermanentError
from carillon.task import Task
from carillon.testing.crashes import CrashingRehearsal, End, Scenario, Trial, played
from carillon.workflows.declared import WorkflowTask

#: No saga is tried more often; one of ten steps needs about two thousand trials.
MOST_TRIALS = 20_000


class Way(StrEnum):
    """How a step fails."""

    REFUSED = "it says that it did nothing"
    UNKNOWN_BEFORE = "it breaks before its effect, each time"
    UNKNOWN_AFTER = "it breaks after its effect, each time"
    CANCELLED_BEFORE = "the workflow is cancelled before its effect"
    CANCELLED_AFTER = "the workflow is cancelled after its effect"


class RefusedError(PermanentError):
    """The step did nothing."""


class BrokenError(CarillonError):
    """The step broke, and whether it did something is not known."""


class NoSagaError(CarillonError):
    """What was to be checked is none; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One way in which one step fails, and what was left after each trial of it."""

    step: str
    way: Way
    #: Without a crash.
    trial: Trial
    #: With a crash at each moment.
    crashed: Sequence[Trial]
    #: Those of all these that left neither all nor nothing, or did not end.
    violations: Sequence[Trial]


@dataclass(frozen=True, slots=True)
class Check:
    """What came of checking a saga."""

    #: What there is before it, and after it went well.
    nothing: Any
    all: Any
    #: Undisturbed, and with a crash at each moment.
    undisturbed: Trial
    crashed: Sequence[Trial]
    cases: Sequence[Case]

    @property
    def trials(self) -> int:
        """How often it was played."""
        return 1 + len(self.crashed) + sum(1 + len(case.crashed) for case in self.cases)

    @property
    def violations(self) -> list[Trial]:
        """The trials that left something else than all or nothing."""
        differ = [trial for trial in self.crashed if trial.end != self.undisturbed.end]
        return [*differ, *(trial for case in self.cases for trial in case.violations)]


async def check(make: Callable[[], Scenario]) -> Check:
    """Play a scenario whose run is a saga in every way in which its steps fail, with a crash at every moment of each.

    Raises `NoSagaError` where it does not go well undisturbed, or has no steps.
    """
    nothing = orjson.loads(orjson.dumps(make().effects()))
    undisturbed = await played(make())
    if undisturbed.end.state != "completed":
        message = f"undisturbed it ends {undisturbed.end.state}, and has to complete: {undisturbed.error}"
        raise NoSagaError(message)
    crashed = [await played(make(), dies_at=at) for at in range(len(undisturbed.moments))]
    steps = _steps(make(), undisturbed)
    if not steps:
        message = "it has no steps that are tasks, so there is nothing that could fail"
        raise NoSagaError(message)
    allowed, cases, trials = (nothing, undisturbed.end.effects), [], 1 + len(crashed)
    for step in steps:
        for way in Way:
            cases.append(await _case(make, step, way, allowed))
            trials += 1 + len(cases[-1].crashed)
            if trials > MOST_TRIALS:
                message = f"it needs more than {MOST_TRIALS:,} trials; check its parts by themselves"
                raise NoSagaError(message)
    return Check(nothing, undisturbed.end.effects, undisturbed, crashed, cases)


async def _case(make: Callable[[], Scenario], step: str, way: Way, allowed: tuple[Any, Any]) -> Case:
    async def trial(dies_at: int | None) -> Trial:
        scenario = make()
        return await played(scenario, dies_at=dies_at, amid=lambda rehearsal: _spoilt(scenario, rehearsal, step, way))

    first = await trial(None)
    crashed = [await trial(at) for at in range(len(first.moments))]
    violations = [one for one in (first, *crashed) if not _is_fine(one.end, allowed)]
    return Case(step, way, first, crashed, violations)


def _is_fine(end: End, allowed: tuple[Any, Any]) -> bool:
    return end.state not in {"pending", "queued", "running", "retrying"} and end.effects in allowed


def _steps(scenario: Scenario, undisturbed: Trial) -> list[str]:
    """The tasks that the saga's steps are, in the order in which they came."""
    tasks = {name: task for tasks in scenario.tasks for name, task in tasks.declared.items()}
    taken = [moment.removesuffix(" has been taken") for moment in undisturbed.moments if moment.endswith("taken")]
    return [name for name in dict.fromkeys(taken) if name in tasks and not isinstance(tasks[name], WorkflowTask)]


@contextmanager
def _spoilt(scenario: Scenario, rehearsal: CrashingRehearsal, step: str, way: Way) -> Iterator[None]:
    """Let a step fail in that way until the block ends."""
    task = next(tasks.declared[step] for tasks in scenario.tasks if step in tasks.declared)
    was = task.original_func, task.is_async, task.process
    task.original_func, task.is_async, task.process = _spoilt_code(task, rehearsal, way), True, False
    try:
        yield
    finally:
        task.original_func, task.is_async, task.process = was


def _spoilt_code(task: Task[..., Any], rehearsal: CrashingRehearsal, way: Way) -> Callable[..., Any]:
    code, is_async = task.original_func, task.is_async

    async def spoilt(*args: Any, **kwargs: Any) -> Any:
        if way is Way.REFUSED:
            raise RefusedError("it was to refuse")
        if way is Way.UNKNOWN_BEFORE:
            raise BrokenError("it was to break")
        if way is Way.CANCELLED_BEFORE:
            await rehearsal.cancel_first("the check cancels it")
        returned = code(*args, **kwargs)
        if is_async:
            returned = await returned
        if way is Way.UNKNOWN_AFTER:
            raise BrokenError("it was to break")
        if way is Way.CANCELLED_AFTER:
            await rehearsal.cancel_first("the check cancels it")
        return returned

    return spoilt
