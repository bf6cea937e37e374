"""Rehearsing a domain: its worker in memory, by a clock that stands still until the test moves it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar
from uuid import UUID

from taskiq import AsyncTaskiqTask, TaskiqMiddleware

from carillon import clock, middleware
from carillon.cloudevents import Envelope
from carillon.contracts import Event
from carillon.ids import new_id
from carillon.ledger.audit import Actor
from carillon.ledger.statements.rows import gate_of
from carillon.limits import check_number
from carillon.retry import Budget
from carillon.settings import PlatformSettings
from carillon.task import Task
from carillon.tasks import Tasks
from carillon.telemetry.excerpt import kept_lines
from carillon.telemetry.metrics import Metrics
from carillon.testing.held import HeldClock, HeldLoop
from carillon.testing.memory import MemoryPlatform
from carillon.testing.memory.platform import NEVER_SECONDS
from carillon.testing.memory.workflows import Asked
from carillon.testing.rehearsed import RehearsedRun, seen
from carillon.transports.port import Consumer, Execute
from carillon.worker.broker import CarillonBroker
from carillon.worker.gatekeeper import Gatekeeper
from carillon.worker.receiver import Receiver
from carillon.worker.results import results_of

Said = TypeVar("Said", bound=Event)
#: How a test names a run: by what `.kiq()` gave back, or by its id.
Named = AsyncTaskiqTask[Any] | UUID | str

#: Moments at which the clock may stop in one `advance`; more of them are a loop.
MOST_STOPS = 100_000
#: What still executes when a rehearsal ends is cancelled, and may clean up for this long.
LEAVE_SECONDS = 2.0
#: Between two looks at what comes from a thread or a socket.
LOOK_SECONDS = 0.001


class Rehearsal:
    """Runs domains in memory, without any server, as their workers would run them.

    ```python
    async with Rehearsal(tasks, resources={Mailer: mailer}) as rehearsal:
        await remind.kicker().with_labels(delay=86_400).kiq("order-17")
        await rehearsal.advance(timedelta(days=1))
        assert rehearsal.said(ReminderSent) == [ReminderSent(order="order-17")]
    ```

    What executes is the worker's own code: validation, middlewares, retries, timeouts, cancellation, limits, events. In
    memory are the ledger and the transport. The clock stands at `at`, or at the present moment, and only `advance`
    moves it; runs, timeouts, deadlines and rates live by it, and so does `asyncio.sleep` in a task, but not in the test
    itself. A task that asks for the time sees it with `carillon.clock.now()`.

    `concurrency` and `limit` are for each domain what they are for a `Service`: runs that its worker executes at once,
    and runs that the domain does.

    `patience` is how many seconds of real time `settle` and `advance` wait for what a task does in a thread, or with a
    socket. One rehearsal at a time in one process; it needs asyncio's own event loop.
    """

    def __init__(
        self,
        *domains: Tasks,
        resources: Mapping[type, object] | None = None,
        at: datetime | None = None,
        middlewares: Sequence[TaskiqMiddleware] = (),
        concurrency: int = 10,
        limit: int | None = None,
        patience: float = 10.0,
    ) -> None:
        if at is not None and at.tzinfo is None:
            message = f"the moment {at} names no time zone; say datetime(..., tzinfo=UTC)"
            raise ValueError(message)
        if limit is not None:
            check_number("limit", limit)
        self._domains = domains
        self._resources = dict(resources or {})
        self._clock = HeldClock(at or clock.now())
        self._stack = middleware.stack(Metrics(), middlewares)
        self._concurrency = concurrency
        self._limit = limit
        self._patience = patience
        self._open = AsyncExitStack()
        self._declared: dict[str, Task[..., Any]] = {}
        self._receivers: list[Receiver] = []
        self._consumers: dict[UUID, Consumer] = {}
        for tasks in domains:
            tasks.check(self._resources)
            self._declared |= tasks.declared

    async def __aenter__(self) -> Self:
        """Begin. The tasks are connected until the end, so that `.kiq()` submits here."""
        loop = asyncio.get_running_loop()
        self._loop = HeldLoop(loop, self._clock)
        async with AsyncExitStack() as opening:
            opening.enter_context(clock.replaced_by(self._clock))
            self._loop.hold()
            opening.callback(self._loop.let_go)
            opening.enter_context(kept_lines())
            #: The platform in memory, for what has no name here: `platform.ledger.steering`, `platform.submit`.
            self.platform = await opening.enter_async_context(MemoryPlatform(_settings(), name="rehearsal"))
            self._borrow_tasks(opening)
            for tasks in self._domains:
                rows = [task.entry(queue="") for task in tasks.declared.values()]
                await self.platform.catalogue.register(tasks.domain, rows, [], {}, limit=self._limit)
            context = HeldLoop.context()
            opening.push_async_callback(self._leave)
            for tasks in self._domains:
                await loop.create_task(self._take(tasks, opening), context=context)
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End. What still executes is cancelled."""
        await self._open.aclose()

    @property
    def now(self) -> datetime:
        """The moment at which the clock stands."""
        return self._clock.now()

    async def settle(self) -> None:
        """Return when nothing more happens by itself: what is due has ended, or waits for the clock or for the test.

        Raises `AssertionError` when that is not so within the patience of this rehearsal.
        """
        await self._quiet(waits=True)

    async def advance(self, by: timedelta, *, waits: bool = True) -> None:
        """Move the clock, from one moment at which something is due to the next, and let what is due happen.

        At each moment it settles first. With `waits=False` it does not wait for what is in a thread or at a socket: the
        timeout of such code can be rehearsed like that. Raises `AssertionError` as `settle` does, and for a loop.
        """
        if by < timedelta(0):
            message = f"the clock goes forward only, not by {by}"
            raise ValueError(message)
        target = self.now + by
        for _ in range(MOST_STOPS):
            await self._quiet(waits=waits)
            moments = (self._clock.next_timer(), self.platform.ledger.next_moment())
            due = min((moment for moment in moments if moment is not None), default=target)
            if self.now == target and due > target:
                return
            self._clock.move_to(min(due, target))
            for tasks in self._domains:
                self.platform.store.wake(tasks.domain)
                self.platform.store.wake(gate_of(tasks.domain))
        message = f"something was due at {MOST_STOPS} moments before {target}; does a run snooze for ever?"
        raise AssertionError(message)

    async def hear(self, event: Event, *, source: str = "/rehearsal", id: str | None = None) -> bool:  # noqa: A002 - CloudEvents' word
        """Let everyone who hears this event answer; False when the same source and id was heard before."""
        return await self.platform.say(Envelope.of(event, source=source, id=id), actor="rehearsal")

    async def cancel(self, run: Named, reason: str | None = None) -> None:
        """Cancel a run and what it submitted, as a person would."""
        await self.platform.ledger.steering.cancel(_id(run), Actor("rehearsal", "a test"), reason)

    def decisions(self) -> list[Asked]:
        """What workflows wait for people to decide, in the order in which they asked."""
        return self.platform.ledger.workflows.decisions()

    async def decide(self, asked: Asked, *, approved: bool, reason: str | None = None) -> None:
        """Decide, as a person would: approve, or of a repair let it be tried again."""
        actor = Actor("rehearsal", "a test")
        decision = {"approved": approved, "by": actor.name, "reason": reason, "at": self.now.isoformat()}
        await self.platform.ledger.workflows.decide(asked.workflow, asked.seq, decision, actor, reason)

    def said(self, contract: type[Said]) -> list[Said]:
        """The events of this type that runs have said, in order."""
        events = self.platform.store.events.values()
        return [
            contract.model_validate(row["data"])
            for row in events
            if row["type"] == contract.type and row["run_id"] is not None
        ]

    def run(self, run: Named) -> RehearsedRun:
        """A run as it stands now; raises `KeyError` for one that nobody knows."""
        store, wanted = self.platform.store, _id(run)
        row = store.run(wanted)
        if row is None:
            raise KeyError(wanted)
        return seen(row, store.attempts_of(row), self.platform.history.limit_of(wanted))

    def runs(self, task: Task[..., Any] | None = None) -> list[RehearsedRun]:
        """The runs of a task, or all, in the order in which they were accepted."""
        names = self._declared.keys() if task is None else {task.task_name}
        found = [self.run(run) for run in self.platform.store.accepted]
        return [run for run in found if task is None or run.task in names]

    def _borrow_tasks(self, opening: AsyncExitStack) -> None:
        """Connect the tasks, each with a retry budget of its own, until the end."""
        for task in self._declared.values():
            opening.callback(_give_back, task, task.broker, task.budget)
            task.budget = Budget(task.retry)
        results = results_of(self.platform)
        self._broker = CarillonBroker(self.platform, list(self._declared.values()), self._stack, results)

    async def _take(self, tasks: Tasks, opening: AsyncExitStack) -> None:
        """Begin to take runs of a domain, and to let them in. Whatever begins here lives by the held clock."""
        receiver = Receiver(
            self.platform,
            new_id(),
            tasks.domain,
            tasks.declared,
            self._resources,
            middlewares=self._broker.middlewares,
            metrics=Metrics(),
            results=self._broker.results,
            concurrency=self._concurrency,
            # None waits in memory, so that code that does something else the second time is found.
            kept=0,
        )
        self._receivers.append(receiver)
        await self.platform.ledger.enrol(receiver.worker, tasks.domain, "here", 0, "rehearsal", self._concurrency)
        take = self.platform.transport.consume
        consumer: Consumer = await take(tasks.domain, receiver.worker, self._concurrency, self._executing(receiver))
        self._consumers[receiver.worker] = consumer
        opening.push_async_callback(consumer.stop)
        # It is told of all that it could find: were it to look each second, a day would have 86,400 moments.
        gatekeeper = Gatekeeper(self.platform, tasks.domain, Metrics(), tick=NEVER_SECONDS)
        for duty in (self._obey(receiver), gatekeeper.run()):
            opening.callback(asyncio.create_task(duty, name=f"duty of {tasks.domain}").cancel)

    def _executing(self, receiver: Receiver) -> Execute:
        """What takes a delivery to its end."""
        return receiver.execute

    async def _obey(self, receiver: Receiver) -> None:
        """Cancel what somebody wants cancelled."""
        asked = self.platform.wakeups.subscribe(str(receiver.worker))
        while True:
            await asked.wait()
            asked.clear()
            await receiver.obey()

    async def _leave(self) -> None:
        # Nobody moves the clock any more: who cleans up sleeps by the real one.
        self._loop.let_go()
        running = {task for receiver in self._receivers for task in receiver.running.values()}
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=LEAVE_SECONDS)
        self._clock.fire_all()
        for receiver in self._receivers:
            await receiver.close()

    async def _quiet(self, *, waits: bool) -> None:
        """Turn the loop until it has nothing to do, and what is late is expired."""
        patient_until = time.monotonic() + self._patience
        while True:
            await asyncio.sleep(0)
            if self._loop.is_idle:
                outside = self._outside() if waits else []
                if not outside and not await self._expire():
                    return
                if outside:
                    await asyncio.sleep(LOOK_SECONDS)
            if time.monotonic() > patient_until:
                raise AssertionError(self._restless())

    def _outside(self) -> list[str]:
        """What executes and may go on without the clock and the test: in a thread, or at a socket."""
        tasks = [self.run(run).task for receiver in self._receivers for run in receiver.running]
        if self._loop.waits_outside:
            return tasks
        return [name for name in tasks if name in self._declared and not self._declared[name].is_async]

    def _restless(self) -> str:
        found = ", ".join(sorted(self._outside())) or "none; so something of the test itself does not rest"
        return (
            f"not everything came to rest within {self._patience:g} s. Still in a thread or at a socket: {found}. Let "
            "that end, give the rehearsal more `patience`, or pass it by with `advance(..., waits=False)`"
        )

    async def _expire(self) -> bool:
        moved = False
        for tasks in self._domains:
            expired = await self.platform.ledger.expire(tasks.domain)
            await self.platform.ledger.followups.follow(expired.awaited)
            if expired.moved:
                # Some of them may have had slots.
                self.platform.wakeups.tell(gate_of(tasks.domain))
                moved = True
        return moved


def _settings() -> PlatformSettings:
    """Settings that point nowhere, whatever the environment says."""
    return PlatformSettings.model_construct(storage_url="memory:///")


def _give_back(task: Task[..., Any], broker: Any, budget: Budget) -> None:
    task.broker, task.budget = broker, budget


def _id(run: Named) -> UUID:
    if isinstance(run, UUID):
        return run
    return UUID(run if isinstance(run, str) else run.task_id)
