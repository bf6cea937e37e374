"""Letting workers die: at every moment of a scenario, one after the other, to see that the end is the same.

```python
def a_payment() -> Scenario:
    shop = FakeShop()
    return Scenario([tasks], start=lambda: payment_saga.kiq("order-17"), effects=shop.books, resources={Shop: shop})

async def test_a_payment_ends_the_same_wherever_its_worker_dies():
    undisturbed, crashed = await every_crash(a_payment)
    assert [trial for trial in crashed if trial.end != undisturbed.end] == []
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from taskiq import AsyncTaskiqTask

from carillon.ledger.records import Delivery, Finish
from carillon.tasks import Tasks
from carillon.testing.rehearsal import Rehearsal
from carillon.transports.port import Acknowledge, Execute
from carillon.worker.receiver import Receiver
from carillon.worker.sweeper import MOST_LOST, SUSPICIOUS
from carillon.workflows.records import Parking

#: A scenario has an end within this time of its own clock.
DEFAULT_SPAN = timedelta(days=1)


class End(NamedTuple):
    """How a scenario ended."""

    state: str
    result: Any
    #: What there is in its world.
    effects: Any


@dataclass(frozen=True, slots=True)
class Trial:
    """A scenario that was played once."""

    end: End
    #: At which moment a worker died, in words; None where none did.
    died: str | None
    #: Every moment at which a worker may die, in the order in which they came.
    moments: Sequence[str]
    error: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run, and the world in which it has its effects. Each trial makes a new one."""

    #: The domains whose workers take part.
    tasks: Sequence[Tasks]
    #: Submits the run.
    start: Callable[[], Awaitable[AsyncTaskiqTask[Any]]]
    #: What there is in the world in the end, as JSON types.
    effects: Callable[[], Any]
    resources: Mapping[type, object] = field(default_factory=dict)
    #: What others do meanwhile: say events, decide, move the clock.
    meanwhile: Callable[[Rehearsal], Awaitable[None]] | None = None
    #: How far the clock is moved before the end is looked at.
    span: timedelta = DEFAULT_SPAN


class Deaths:
    """Counts the moments at which a worker may die, and lets it die at one."""

    def __init__(self, at: int | None) -> None:
        self._at = at
        self.moments: list[str] = []
        #: The worker that is to die now, until it has.
        self.dying: asyncio.Queue[UUID] = asyncio.Queue()

    async def come(self, moment: str, worker: UUID) -> None:
        """Come to a moment, which a worker that dies there never leaves."""
        self.moments.append(moment)
        if len(self.moments) - 1 == self._at:
            self.dying.put_nowait(worker)
            await asyncio.Event().wait()


class CrashingRehearsal(Rehearsal):
    """A rehearsal in which one worker dies, with all that it executes, and another takes its place."""

    def __init__(self, *domains: Tasks, dies_at: int | None = None, **options: Any) -> None:
        super().__init__(*domains, **options)
        self.deaths = Deaths(dies_at)
        #: The run that the scenario is about.
        self.first: AsyncTaskiqTask[Any] | None = None
        self._executed: dict[UUID, set[asyncio.Task[Any]]] = {}

    async def cancel_first(self, reason: str) -> None:
        """Cancel the run that the scenario is about, if it has begun."""
        if self.first is not None:
            await self.cancel(self.first, reason)

    def _executing(self, receiver: Receiver) -> Execute:
        executed = self._executed.setdefault(receiver.worker, set())

        async def execute(delivery: Delivery, acknowledge: Acknowledge) -> None:
            task = asyncio.current_task()
            assert task is not None
            executed.add(task)
            task.add_done_callback(executed.discard)
            await self.deaths.come(f"{delivery.task} has been taken", receiver.worker)
            await receiver.execute(delivery, acknowledge)

        return execute

    async def _take(self, tasks: Tasks, opening: AsyncExitStack) -> None:
        if not self._executed:
            self._watch_writes()
            opening.callback(asyncio.create_task(self._bury(), name="deaths").cancel)
        await super()._take(tasks, opening)

    def _watch_writes(self) -> None:
        """Let workers die before and after they write how something ended, or that it waits."""
        ledger, deaths = self.platform.ledger, self.deaths
        finish, park = ledger.finish, ledger.workflows.park

        async def watched_finish(item: tuple[UUID, Finish]) -> Any:
            worker, end = item
            name = self.run(end.id).task
            await deaths.come(f"{name} has ended, and that is not recorded", worker)
            outcome = await finish(item)
            await deaths.come(f"{name} has ended, and that is recorded", worker)
            return outcome

        async def watched_park(item: tuple[UUID, Parking, Sequence[bool]]) -> Any:
            worker, parking, _ = item
            name = self.run(parking.id).task
            await deaths.come(f"{name} is to wait, and that is not recorded", worker)
            outcome = await park(item)
            await deaths.come(f"{name} waits, and that is recorded", worker)
            return outcome

        ledger.finish, ledger.workflows.park = watched_finish, watched_park  # type: ignore[assignment] # called alike

    async def _bury(self) -> None:
        """Let the worker that dies be gone, its runs be rescued, and another begin."""
        while True:
            dead = await self.deaths.dying.get()
            receiver = next(one for one in self._receivers if one.worker == dead)
            ledger, tasks = self.platform.ledger, next(one for one in self._domains if one.domain == receiver.domain)
            await self._consumers[dead].stop()
            for task in list(self._executed[dead]):
                task.cancel()
            if self._executed[dead]:
                await asyncio.wait(self._executed[dead])
            await ledger.retire(dead)
            rescued = await ledger.rescue(tasks.domain, timedelta(0), suspicious=SUSPICIOUS, most=MOST_LOST)
            await ledger.followups.follow([*rescued.awaited, *self.platform.store.ended])
            await self._take(tasks, self._open)


async def played(
    scenario: Scenario,
    *,
    dies_at: int | None = None,
    amid: Callable[[CrashingRehearsal], AbstractContextManager[None]] | None = None,
) -> Trial:
    """Play a scenario, with a worker that dies at one of its moments, counted from 0, or with none that does.

    `amid` makes what the whole of it happens within.
    """
    rehearsal = CrashingRehearsal(*scenario.tasks, resources=scenario.resources, dies_at=dies_at)
    async with rehearsal:
        with nullcontext() if amid is None else amid(rehearsal):
            rehearsal.first = await scenario.start()
            await rehearsal.settle()
            if scenario.meanwhile is not None:
                await scenario.meanwhile(rehearsal)
            await rehearsal.advance(scenario.span)
        run, moments = rehearsal.run(rehearsal.first), rehearsal.deaths.moments
        died = moments[dies_at] if dies_at is not None and dies_at < len(moments) else None
        effects = orjson.loads(orjson.dumps(scenario.effects()))
        return Trial(End(run.state.value, run.result, effects), died, list(moments), run.error)


async def every_crash(make: Callable[[], Scenario]) -> tuple[Trial, list[Trial]]:
    """Play a scenario undisturbed, and once for each moment at which a worker may die, with one that does."""
    undisturbed = await played(make())
    return undisturbed, [await played(make(), dies_at=at) for at in range(len(undisturbed.moments))]
