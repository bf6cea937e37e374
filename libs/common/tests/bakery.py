"""A small domain whose workflows the tests of the library run."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

from carillon import RemoteTask, Retry, Service, Tasks, Workflow
from carillon.contracts import Event
from carillon.errors import PermanentError, StepFailedError, TransientError
from carillon.settings import PlatformSettings

SOON = Retry(attempts=3, base=timedelta(milliseconds=20), cap=timedelta(milliseconds=50))


class OrderPaid(Event):
    """Said by the bank."""

    type: ClassVar[str] = "bank.order_paid.v1"

    order: str
    cents: int


class Bakery:
    """What the tasks did, for the tests to see; what is to fail, and a gate."""

    def __init__(self) -> None:
        self.done: list[str] = []
        #: What is the case, for the sagas.
        self.holds: set[str] = set()
        #: By what a task says it does: how often that still fails, negative for always.
        self.fails: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()

    def do(self, what: str) -> None:
        """Do something, or fail."""
        if self.fails[what]:
            self.fails[what] -= 1
            raise TransientError(f"cannot {what}")
        self.done.append(what)


def bakery_tasks() -> tuple[Tasks, dict[str, Any]]:  # noqa: C901, PLR0915 - a list of tasks
    """The tasks, declared anew, and the workflows by their names."""
    tasks = Tasks("bakery")

    @tasks.task(retry=SOON)
    async def mix(what: str, *, bakery: Bakery) -> str:
        """Mix. Safe to run twice: it only notes that it did."""
        bakery.do(f"mix {what}")
        return f"{what} dough"

    @tasks.task(retry=SOON)
    async def bake(dough: str, *, bakery: Bakery) -> str:
        """Bake. Safe to run twice: it only notes that it did."""
        bakery.do(f"bake {dough}")
        return dough.replace("dough", "bread")

    @tasks.task(retry=SOON)
    async def refuse(why: str) -> str:
        """Refuse for good. Safe to run twice: it does nothing."""
        raise PermanentError(why)

    @tasks.task(retry=SOON)
    async def hold(what: str, *, bakery: Bakery) -> str:
        """Wait at the gate. Safe to run twice: it only notes that it did."""
        bakery.entered.set()
        await bakery.gate.wait()
        bakery.do(f"hold {what}")
        return what

    @tasks.workflow(default=True)
    async def make(what: str, *, flow: Workflow) -> str:
        """One step after the other."""
        dough = await flow.step(mix, what)
        return await flow.step(bake, dough)

    @tasks.workflow()
    async def make_all(
        whats: list[str], need: float = 1.0, concurrency: int = 1000, *, flow: Workflow
    ) -> dict[str, Any]:
        """Fan-out and fan-in."""
        batch = await flow.map(mix, whats, concurrency=concurrency, need=need)
        return batch.summary | {"results": list(batch.results)}

    @tasks.workflow()
    async def make_tomorrow(what: str, *, flow: Workflow) -> list[str]:
        """Wait a day between two steps."""
        began = flow.now()
        dough = await flow.step(mix, what)
        await flow.sleep(timedelta(days=1))
        bread = await flow.step(bake, dough)
        return [bread, str((flow.now() - began) >= timedelta(days=1))]

    @tasks.workflow(awaits=[OrderPaid])
    async def sell(order: str, *, flow: Workflow) -> dict[str, Any]:
        """Wait for the money."""
        try:
            paid = await flow.event(OrderPaid, match={"order": order}, timeout=timedelta(days=3))
        except TimeoutError:
            return {"sold": False}
        return {"sold": True, "cents": paid.cents}

    @tasks.workflow()
    async def ask(question: str, *, flow: Workflow) -> dict[str, Any]:
        """Ask a person."""
        decision = await flow.approval(question, timeout=timedelta(days=1))
        return {"approved": decision.approved, "by": decision.by, "reason": decision.reason}

    @tasks.workflow()
    async def hurry(what: str, *, flow: Workflow) -> str:
        """Wait no longer than an hour."""
        try:
            async with asyncio.timeout(3600):
                return await flow.step(hold, what)
        except TimeoutError:
            return "too late"

    @tasks.workflow()
    async def stumble(why: str, *, flow: Workflow) -> str:
        """Fail with a step, and go on."""
        try:
            return await flow.step(refuse, why)
        except StepFailedError as error:
            return f"{error.kind}: {error.step}"

    @tasks.workflow()
    async def make_by_others(what: str, *, flow: Workflow) -> list[str]:
        """A workflow as a step of another, and a task by its name."""
        bread = await flow.step(make, what)
        dough = await flow.step(RemoteTask("bakery.mix", returns=str), what=bread)
        return [bread, dough]

    @tasks.task(retry=SOON)
    async def reserve(order: str, *, bakery: Bakery) -> str:
        """Reserve. Safe to run twice: the order has one reservation."""
        bakery.do("reserve")
        bakery.holds.add(f"reserved {order}")
        return order

    @tasks.task(retry=SOON)
    async def release(order: str, *, bakery: Bakery) -> None:
        """Take the reservation back. Safe to run twice: what is not there is not taken."""
        bakery.do("release")
        bakery.holds.discard(f"reserved {order}")

    @tasks.task(retry=SOON)
    async def charge(order: str, *, bakery: Bakery) -> str:
        """Charge. Safe to run twice: the order is charged once."""
        bakery.do("charge")
        bakery.holds.add(f"charged {order}")
        return order

    @tasks.task(retry=SOON)
    async def refund(order: str, *, bakery: Bakery) -> None:
        """Give the money back. Safe to run twice: what was not charged is not given back."""
        bakery.do("refund")
        bakery.holds.discard(f"charged {order}")

    @tasks.task(retry=SOON)
    async def ship(order: str, *, bakery: Bakery) -> str:
        """Ship. Safe to run twice: an order is one parcel."""
        bakery.do("ship")
        bakery.holds.add(f"shipped {order}")
        return order

    @tasks.task(retry=SOON)
    async def call_back(order: str, *, bakery: Bakery) -> None:
        """Call the parcel back. Safe to run twice: what is not under way is not called back."""
        bakery.do("call back")
        bakery.holds.discard(f"shipped {order}")

    @tasks.workflow()
    async def deliver(order: str, *, flow: Workflow) -> dict[str, Any]:
        """A saga."""
        try:
            async with flow.saga() as saga:
                await saga.step(reserve, order, undo=release)
                await saga.step(charge, order, undo=refund)
                await saga.step(ship, order, undo=call_back)
        except StepFailedError as error:
            return {"status": "undone", "why": error.kind, "compensations": saga.compensations}
        return {"status": "completed"}

    @tasks.workflow()
    async def deliver_surely(order: str, *, flow: Workflow) -> str:
        """A saga with a point of no return."""
        async with flow.saga() as saga:
            await saga.step(reserve, order, undo=release)
            saga.pivot()
            await saga.step(ship, order)
        return "completed"

    @tasks.workflow()
    async def deliver_badly(order: str, *, flow: Workflow) -> str:
        """A saga that forgets to give the money back."""
        async with flow.saga() as saga:
            await saga.step(reserve, order, undo=release)
            await saga.step(charge, order)
            await saga.step(ship, order, undo=call_back)
        return "completed"

    return tasks, {
        "reserve": reserve, "release": release, "charge": charge, "refund": refund, "ship": ship,
        "call_back": call_back, "deliver": deliver, "deliver_surely": deliver_surely, "deliver_badly": deliver_badly,
        "make": make, "make_all": make_all, "make_tomorrow": make_tomorrow, "sell": sell, "ask": ask, "hurry": hurry,
        "stumble": stumble, "make_by_others": make_by_others, "mix": mix, "bake": bake, "refuse": refuse, "hold": hold,
    }  # fmt: skip


def bakery_service(settings: PlatformSettings, bakery: Bakery, tasks: Tasks, **options: Any) -> Service:
    """The bakery as a service."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def resources(_: object):
        yield {Bakery: bakery}

    return Service(name="bakery", settings=settings, tasks=tasks, resources=resources, **options)
