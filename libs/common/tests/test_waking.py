"""When whoever starts runs looks again: at the moment of the earliest, and at once when an earlier one is submitted.

The loops live by a held clock, so that a look that comes late is late by exactly as much, on a slow machine too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from carillon import clock
from carillon.ids import new_id
from carillon.ledger.records import Delivery, NewRun, Priority
from carillon.platform import Platform
from carillon.telemetry.metrics import Metrics
from carillon.testing.held import HeldClock, HeldLoop
from carillon.testing.memory.platform import MemoryWakeups
from carillon.testing.memory.store import Store
from carillon.transports.postgres import PostgresTransport
from carillon.worker.sweeper import Sweeper

#: No pause is shorter than 5 ms, and a timer counts in whole microseconds.
LATEST = 0.006
HOUR = timedelta(hours=1)


class Waiting:
    """A ledger in which runs wait, each for its second of the held clock; who takes one is late by so much."""

    def __init__(self, *due: float) -> None:
        self.due = set(due)
        self.late: dict[float, float] = {}

    async def claim(self, *_: object, **__: object) -> list[Delivery]:
        """Take what is due."""
        now = clock.monotonic()
        taken = {due for due in self.due if due <= now}
        self.due -= taken
        self.late |= {due: now - due for due in taken}
        return [Delivery(id=new_id(), attempt=1, task="shop.add", args={}) for _ in taken]

    async def take_due(self, _: str, priority: Priority, *, room: int) -> list[Delivery]:
        """The same, of one priority."""
        return await self.claim() if priority is Priority.NORMAL else []

    async def take_overdue(self, *_: object, **__: object) -> list[Delivery]:
        """Nothing was lost."""
        return []

    async def next_due(self, _: str) -> float | None:
        """Seconds until the next."""
        return min(self.due) - clock.monotonic() if self.due else None


class Machine:
    """What moves the clock on, from timer to timer, and wakes nobody by itself."""

    def __init__(self) -> None:
        self.clock = HeldClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.loop = HeldLoop(asyncio.get_running_loop(), self.clock)
        self.wakeups = MemoryWakeups(Store())

    async def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        target = self.clock.now() + timedelta(seconds=seconds)
        await self.settle()
        while (due := self.clock.next_timer()) is not None and due <= target:
            self.clock.move_to(due)
            await self.settle()
        self.clock.move_to(target)
        await self.settle()

    async def settle(self) -> None:
        """Let everything go on until it waits."""
        while True:
            await asyncio.sleep(0)
            if self.loop.is_idle:
                return

    async def claims(self, ledger: Any) -> None:
        """Claim runs, as a worker does where PostgreSQL is the transport."""
        transport = PostgresTransport(ledger, self.wakeups)
        consumer = await transport.consume("shop", new_id(), 10, _done)
        try:
            await asyncio.Event().wait()
        finally:
            await consumer.stop()

    async def feeds(self, ledger: Any) -> None:
        """Feed the transport, as a worker does where that is RabbitMQ."""
        transport = SimpleNamespace(is_ledger=False, waiting=_nothing_waits)
        platform: Any = SimpleNamespace(
            ledger=ledger, transport=transport, wakeups=self.wakeups, dispatch=_all_are_taken
        )
        receiver: Any = SimpleNamespace(watermarks=dict.fromkeys(Priority, 0.0))
        await Sweeper(platform, "shop", receiver, Metrics())._keep_feeding()


async def _done(*_: object) -> None: ...


async def _nothing_waits(*_: object) -> int:
    return 0


async def _all_are_taken(*_: object) -> bool:
    return True


@asynccontextmanager
async def living(machine: Machine, looks: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let it live by the held clock."""
    with clock.replaced_by(machine.clock):
        machine.loop.hold()
        task = asyncio.create_task(looks, context=machine.loop.context())
        try:
            yield
        finally:
            machine.loop.let_go()
            task.cancel()
            await asyncio.wait({task})


@pytest.mark.parametrize("looks", [Machine.claims, Machine.feeds])
async def test_each_run_is_taken_at_its_moment_however_long_the_others_have_to_wait(looks):
    machine, ledger = Machine(), Waiting(0.3, 0.4, 1.5, 3.35, 3.351, 30.0, 600.0)

    async with living(machine, looks(machine, ledger)):
        await machine.advance(60)

    assert ledger.due == {600.0}
    assert max(ledger.late.values()) <= LATEST


@pytest.mark.parametrize("looks", [Machine.claims, Machine.feeds])
async def test_a_run_that_comes_before_the_one_that_is_waited_for_ends_the_wait(looks):
    machine, ledger = Machine(), Waiting(0.75)

    async with living(machine, looks(machine, ledger)):
        await machine.advance(0.1)
        ledger.due.add(0.2)
        machine.wakeups.tell("shop")
        await machine.advance(1)

    assert ledger.late.keys() == {0.2, 0.75}
    assert max(ledger.late.values()) <= LATEST


def due_in(delay: timedelta, domain: str = "shop") -> NewRun:
    return NewRun(id=new_id(), domain=domain, task=f"{domain}.add", args="{}", run_at=clock.now() + delay)


async def test_the_ledger_names_the_moment_of_the_earliest_run_that_waits(platform: Platform):
    nothing = await platform.ledger.next_due("shop")
    for hours in (3, 1, 2):
        await platform.submit(due_in(hours * HOUR))

    due = await platform.ledger.next_due("shop")

    assert nothing is None
    assert due is not None
    assert 0.9 < due / HOUR.total_seconds() <= 1


async def test_a_run_that_is_due_before_the_next_poll_wakes_who_waits(platform: Platform):
    woken, listening = platform.wakeups.subscribe("shop"), platform.wakeups.subscribe("hall")
    async with asyncio.timeout(10):
        await platform.submit(due_in(timedelta(0), "hall"))
        await listening.wait()
        # Whoever begins to listen wakes everybody once.
        woken.clear()

        await platform.submit(due_in(timedelta(seconds=1.5)))
        await woken.wait()

    assert woken.is_set()
