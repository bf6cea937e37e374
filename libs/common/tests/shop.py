"""A small domain that the tests of the library run."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import ClassVar

from carillon import Retry, Run, Service, Tasks
from carillon.contracts import Event
from carillon.errors import Cancel, PermanentError, Snooze, TransientError
from carillon.settings import PlatformSettings

SOON = Retry(attempts=3, base=timedelta(milliseconds=50), cap=timedelta(milliseconds=100))


class OrderPlaced(Event):
    """Said by a customer."""

    type: ClassVar[str] = "shop.order_placed.v1"
    subject_field: ClassVar[str] = "order"

    order: str


class OrderPacked(Event):
    """Said by the shop."""

    type: ClassVar[str] = "shop.order_packed.v1"

    order: str


class Shop:
    """What the tasks did, for the tests to see, and a gate that holds them."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()


def shop_service(settings: PlatformSettings, shop: Shop, **options: object) -> Service:  # noqa: C901 - a list of tasks
    """The shop, assembled anew: each test has its own tasks."""
    tasks = Tasks("shop")

    @tasks.task(default=True)
    async def add(a: int, b: int = 2, *, shop: Shop) -> int:
        """Add two numbers. Safe to run twice: it counts."""
        shop.done[f"add {a}"] += 1
        return a + b

    @tasks.task()
    def shout(text: str) -> str:
        """Shout, from a thread. Safe to run twice: it only returns."""
        return text.upper()

    @tasks.task(retry=SOON)
    async def stumble(times: int, *, run: Run) -> str:
        """Fail the first times. Safe to run twice: it only raises."""
        if run.attempt <= times:
            raise TransientError("the floor is wet")
        return "arrived"

    @tasks.task(retry=SOON)
    async def refuse(how: str) -> None:
        """End in a given way. Safe to run twice: it only raises."""
        if how == "cancel":
            raise Cancel("nobody wants it")
        if how == "snooze":
            raise Snooze(timedelta(milliseconds=50))
        raise PermanentError("it can never work")

    @tasks.task()
    async def return_a_socket() -> object:
        """Return what cannot be kept. Safe to run twice: nothing is kept."""
        return object()

    @tasks.task(timeout=timedelta(milliseconds=100), retry=Retry(attempts=1))
    async def dawdle() -> None:
        """Take too long. Safe to run twice: it only waits."""
        await asyncio.Event().wait()

    @tasks.task()
    async def wait_at_the_gate(name: str, *, shop: Shop) -> str:
        """Wait until the test opens the gate. Safe to run twice: it counts."""
        shop.entered.set()
        shop.done[f"{name} entered"] += 1
        await shop.gate.wait()
        shop.done[name] += 1
        return name

    @tasks.hears(OrderPlaced)
    async def pack_order(event: OrderPlaced, *, run: Run, shop: Shop) -> OrderPacked:
        """Pack. Safe to run twice: it counts."""
        assert run.cause is not None
        shop.done[f"packed {event.order} because of {run.cause.type}"] += 1
        return OrderPacked(order=event.order)

    @tasks.hears(OrderPlaced)
    async def thank_customer(event: OrderPlaced, *, shop: Shop) -> None:
        """Thank. Safe to run twice: it counts."""
        shop.done[f"thanked for {event.order}"] += 1

    @tasks.hears(OrderPacked)
    async def ship_order(event: OrderPacked, *, shop: Shop) -> str:
        """Ship. Safe to run twice: it counts."""
        shop.done[f"shipped {event.order}"] += 1
        return event.order

    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def resources(_):
        yield {Shop: shop}

    return Service(name="shop", settings=settings, tasks=tasks, resources=resources, **options)
