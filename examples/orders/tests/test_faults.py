"""Many payments at once on PostgreSQL, with a bank and a carrier that break now and then: what must hold, holds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
import pytest
from pydantic import SecretStr

from carillon import Service
from carillon.errors import TransientError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from orders.invariants import violations
from orders.partners import Carrier, Directory, PlayedPartners
from orders.payments import Payments
from orders.store import Store, TableBank
from orders.tasks import tasks
from orders.warehouse import Delivery, Warehouse
from orders.workflows import payment_saga

UNITS = 12


#: No step of an order breaks more often, so that each goes well at its third attempt, and none needs a person.
MOST_BREAKS = 2
#: What one step asks of two.
STEPS = {"book_charge": "charge", "give_back": "refund", "book_refund": "refund"}
SEED = 20_261_129


class Breaking:
    """Breaks before or after what it does, now and then: whoever called does not know whether it was done.

    What it is asked about a doomed order breaks after it was done, each time, when that is to charge.
    """

    def __init__(self, *parts: object) -> None:
        self._parts = parts
        self._odds = random.Random(SEED)
        self.broken: Counter[tuple[str, str]] = Counter()

    def __getattr__(self, name: str):
        does = next(getattr(part, name) for part in self._parts if hasattr(part, name))

        async def breaking(about: str, *args: object) -> object:
            self._break(name, about)
            done = await does(about, *args)
            self._break(name, about)
            if name == "charge" and about.startswith("doomed"):
                raise TransientError("the line broke, as always")
            return done

        return breaking

    def _break(self, name: str, about: str) -> None:
        step = STEPS.get(name, name), about
        if self.broken[step] < MOST_BREAKS and self._odds.random() < 0.2:
            self.broken[step] += 1
            raise TransientError(f"the line broke at {name} of {about}")


@pytest.fixture
async def platform(database_url, engine, tmp_path):
    await migrate(database_url, "carillon.ledger.migrations")
    settings = PlatformSettings(database_url=SecretStr(database_url), storage_url=str(tmp_path))
    settings = settings.model_copy(update={"rabbit_url": None, "rabbit_host": None})
    async with Platform(settings, name="test") as platform:
        yield platform


async def pay(platform: Platform, order: str, user: str) -> UUID:
    arguments = {"order_id": order, "user_id": user, "amount": 9.99}
    run = NewRun(id=new_id(), domain="orders", task=payment_saga.task_name, args=orjson.dumps(arguments).decode())
    return (await platform.submit(run)).id


async def test_thirty_payments_at_once_over_lines_that_break_leave_everything_right(platform, engine):
    store, bank = Store(engine), TableBank(engine)
    lines = Breaking(bank, store)
    partners = PlayedPartners()

    @asynccontextmanager
    async def resources(_: object):
        yield {Warehouse: lines, Payments: Payments(lines, lines), Carrier: partners, Directory: partners}

    await store.receive(Delivery(id="first", item="bell", units=UNITS))
    # Some orders are there twice, at the same time; some cannot go well, each for another reason.
    wanted = [(f"order-{n}", "ada") for n in range(16)] + [(f"order-{n}", "ada") for n in range(4)]
    wanted += [(f"broke-{n}", "broke-bob") for n in range(3)] + [(f"nowhere-{n}", "nowhere-man") for n in range(4)]
    wanted += [(f"doomed-{n}", "eve") for n in range(3)]
    service = Service(name="orders", settings=platform.settings, tasks=tasks, resources=resources, concurrency=20)

    async with running(service, platform):
        runs = await asyncio.gather(*(pay(platform, *one) for one in wanted))

        async def ended():
            rows = [await platform.history.run(run) for run in runs]
            return rows if all(row["finished_at"] for row in rows) else None

        rows = await eventually(ended, within=60)

    told = Counter((row["state"], (row["result"] or {}).get("status")) for row in rows)
    kept, taken = await store.kept(), await bank.taken()
    assert violations(kept, taken) == []
    assert told.keys() == {("completed", "completed"), ("completed", "rolled_back")}
    assert told["completed", "rolled_back"] >= 10
    assert len(lines.broken) >= 20
    assert kept.held == {}
    assert sum(kept.shipped.values()) == len(taken) <= UNITS
    assert all(order.startswith("order-") for order in taken)
