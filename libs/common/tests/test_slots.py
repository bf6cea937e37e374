"""Who gets the next free slot of a worker, where the broker needs a moment to bring what is urgent."""

from __future__ import annotations

import asyncio

import pytest

from carillon.ledger.records import Priority
from carillon.transports import slots as module
from carillon.transports.port import PATIENT_EVERY
from carillon.transports.slots import Slots

LOW, NORMAL, HIGH, URGENT = Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT


class Worker:
    """Deliveries at hand, in the order in which they got a slot."""

    def __init__(self, number: int) -> None:
        self.slots = Slots(number)
        self.started: list[Priority] = []
        self.waiting: list[asyncio.Task[None]] = []

    async def brought(self, *priorities: Priority) -> None:
        """Let the broker bring these."""
        for priority in priorities:
            self.waiting.append(asyncio.create_task(self._start(priority)))
            await asyncio.sleep(0)

    async def end(self, priority: Priority) -> None:
        """End one that has a slot."""
        self.slots.give_back(priority)
        await asyncio.sleep(0)

    async def _start(self, priority: Priority) -> None:
        await self.slots.take(priority)
        self.started.append(priority)


@pytest.fixture
def never_in_time(monkeypatch):
    """A slot that is kept is kept for longer than the test."""
    monkeypatch.setattr(module, "ON_ITS_WAY_SECONDS", 3600)


@pytest.mark.usefixtures("never_in_time")
async def test_the_next_urgent_one_gets_the_slot_though_a_low_one_is_at_hand_before_it():
    worker = Worker(2)
    await worker.brought(URGENT, URGENT, LOW, LOW)

    for _ in range(5):
        await worker.end(URGENT)
        assert LOW not in worker.started
        await worker.brought(URGENT)

    assert worker.started == [URGENT] * 7


@pytest.mark.usefixtures("never_in_time")
async def test_it_is_kept_though_one_that_was_low_gives_it_back():
    worker = Worker(2)
    await worker.brought(LOW, URGENT, URGENT, LOW)
    await worker.end(URGENT)
    assert worker.started == [LOW, URGENT, URGENT]

    await worker.end(LOW)
    assert worker.started == [LOW, URGENT, URGENT]

    await worker.brought(HIGH)
    assert worker.started == [LOW, URGENT, URGENT]
    await worker.brought(URGENT)
    assert worker.started == [LOW, URGENT, URGENT, URGENT]


async def test_a_queue_that_has_run_empty_keeps_a_slot_for_a_moment_only():
    worker = Worker(1)
    await worker.brought(URGENT, LOW, LOW)

    await worker.end(URGENT)
    assert worker.started == [URGENT]
    async with asyncio.timeout(10):
        await worker.waiting[1]

    # The low one that ends was the only one of its priority that may be at hand: nothing more urgent is expected.
    await worker.end(LOW)
    assert worker.started == [URGENT, LOW, LOW]


@pytest.mark.usefixtures("never_in_time")
async def test_a_queue_with_fewer_at_hand_than_it_may_have_keeps_nothing():
    worker = Worker(2)
    await worker.brought(URGENT, LOW, LOW)

    await worker.end(URGENT)

    assert worker.started == [URGENT, LOW, LOW]


@pytest.mark.usefixtures("never_in_time")
async def test_one_start_in_ten_waits_for_nobody():
    worker = Worker(1)
    await worker.brought(URGENT, LOW)

    for _ in range(PATIENT_EVERY - 2):
        await worker.end(URGENT)
        await worker.brought(URGENT)
    assert worker.started == [URGENT] * (PATIENT_EVERY - 1)
    await worker.end(URGENT)

    assert worker.started == [URGENT] * (PATIENT_EVERY - 1) + [LOW]


async def test_no_slot_is_lost_with_those_that_are_cancelled():
    worker = Worker(1)
    await worker.brought(LOW, URGENT, URGENT)
    worker.waiting[2].cancel()
    await asyncio.wait(worker.waiting[2:])

    worker.slots.give_back(LOW)
    # Before it could run it has a slot, and is cancelled.
    worker.waiting[1].cancel()
    await asyncio.wait(worker.waiting[1:])

    assert worker.started == [LOW]
    assert worker.slots.free == 1
