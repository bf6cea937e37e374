"""Runs that are due later, on both transports and the twin: none begins early, none waits for a longer one."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from shop import Shop, shop_service

from carillon.ids import new_id
from carillon.ledger.ledger import Ledger
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.testing import eventually, running
from carillon.transports.port import pause_until

pytestmark = pytest.mark.real("times of starts")

#: Between two runs that are due one after the other: what a slow machine may be late with both.
APART = timedelta(milliseconds=250)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def due_in(delay: timedelta, since: datetime) -> NewRun:
    return NewRun(id=new_id(), domain="shop", task="shop.add", args='{"a": 1}', run_at=since + delay)


async def rows_of(platform: Platform, runs: list[NewRun]) -> list[Any]:
    rows = [await platform.history.run(run.id) for run in runs]
    return sorted(rows, key=lambda row: row["run_at"]) if all(row["finished_at"] for row in rows) else []


async def test_runs_begin_at_their_moments_in_order_beside_a_thousand_that_are_far_off(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        now = datetime.now(UTC)
        far = [due_in(timedelta(hours=1 + number), now) for number in range(1_000)]
        # Some are submitted within the two seconds of which workers are told, and some are long before.
        near = [due_in(timedelta(milliseconds=600) + APART * number, now) for number in range(14)]
        await platform.submit_many(far)
        await asyncio.gather(*(platform.submit(run) for run in random.sample(near, len(near))))
        rows = await eventually(lambda: rows_of(platform, near), within=30)
        counts = await platform.history.count_by_state(now)

    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    assert all(row["started_at"] >= row["run_at"] for row in rows)
    assert {row["state"]: row["count"] for row in counts}["queued"] == len(far)


async def test_a_short_delay_that_comes_after_a_long_one_does_not_wait_for_it(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        now = datetime.now(UTC)
        long, short = due_in(timedelta(minutes=10), now), due_in(timedelta(milliseconds=100), now)
        await platform.submit(long)
        await platform.submit(short)
        await eventually(lambda: rows_of(platform, [short]))

    assert await rows_of(platform, [long]) == []


@pytest.mark.parametrize("transport", ["postgres"])
async def test_a_held_domain_is_not_asked_for_its_due_runs_without_a_pause(platform, shop, monkeypatch):
    looks: list[float] = []
    ask = Ledger.next_due

    async def counted(self: Ledger, domain: str) -> float | None:
        due = await ask(self, domain)
        looks.append(time.monotonic())
        return due

    monkeypatch.setattr(Ledger, "next_due", counted)
    await platform.ledger.pool.execute("insert into carillon.holds (name, actor) values ('shop', 'test')")
    await platform.submit(due_in(timedelta(seconds=-1), datetime.now(UTC)))

    async with running(shop_service(platform.settings, shop), platform):
        await eventually(lambda: has_looked(looks))

    # Submits and other wake-ups shorten a pause now and then.
    assert looks[-1] - looks[0] > 1
    assert not shop.done


async def has_looked(looks: list[float]) -> bool:
    return len(looks) >= 10


@pytest.mark.parametrize(
    ("due", "looked", "pause"), [(3.0, 0.1, 3.0), (-0.05, 0.1, 0.005), (0.0, 0.1, 0.005), (-5.0, 0.1, 0.2)]
)
def test_what_became_due_during_a_look_is_taken_at_once_and_what_may_not_start_is_left_alone(due, looked, pause):
    assert pause_until(due, looked) == pause
