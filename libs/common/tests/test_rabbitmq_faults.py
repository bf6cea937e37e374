"""What becomes of accepted runs while their RabbitMQ is restarted, wiped, cut off, gone or out of memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from shop import OrderPlaced, Shop, shop_service

from carillon.cloudevents import Envelope
from carillon.ids import new_id
from carillon.ledger.records import NewRun, Priority
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from carillon.transports import rabbitmq

pytestmark = pytest.mark.long(seconds=140)

#: More than the worker can have in hand, and so most of them lie in the broker when it fails.
MANY = 2_000


@pytest.fixture
def settings(ledger_url: str, private_rabbitmq, tmp_path) -> PlatformSettings:
    return PlatformSettings(
        database_url=SecretStr(ledger_url),
        rabbit_url=SecretStr(private_rabbitmq.url),
        rabbit_queue_prefix=f"f{new_id().hex[-10:]}",
        storage_url=str(tmp_path),
        carillon_log_format="json",
    )


@pytest.fixture
def shop() -> Shop:
    return Shop()


def additions(count: int) -> list[NewRun]:
    return [NewRun(id=new_id(), domain="shop", task="shop.add", args=f'{{"a": {number}}}') for number in range(count)]


async def submit(platform: Platform, runs: Sequence[NewRun]) -> None:
    await asyncio.gather(*(platform.submit(run) for run in runs))


async def submit_many(platform: Platform) -> None:
    """Submit so many at once that a slow machine needs longer than the broker has for one run."""
    with pytest.MonkeyPatch.context() as patience:
        patience.setattr(rabbitmq, "PUBLISH_SECONDS", 60)
        await submit(platform, additions(MANY))


async def states(platform: Platform) -> dict[str, int]:
    rows = await platform.history.count_by_state(datetime.now(UTC) - timedelta(hours=1))
    return {row["state"]: row["count"] for row in rows}


async def completed(platform: Platform, at_least: int) -> bool:
    return (await states(platform)).get("completed", 0) >= at_least


async def completions(platform: Platform) -> dict[str, int]:
    """How many runs ended, how often one of them did at the most, and what is buried."""
    async with platform.ledger.transaction() as connection:
        row = await connection.fetchrow(
            """select (select count(*) from carillon.runs where state = 'completed') as runs,
                      (select max(n) from (select count(*) as n from carillon.runs group by id) as of_one) as most,
                      (select count(*) from carillon.dead_letters) as buried"""
        )
    return dict(row)


def each_once(runs: int) -> dict[str, int]:
    return {"runs": runs, "most": 1, "buried": 0}


async def test_connections_closed_by_force_under_load_lose_and_double_nothing(
    platform, settings, shop, private_rabbitmq
):
    async with running(shop_service(settings, shop), platform):
        for part in (additions(100), additions(100), additions(100)):
            submitting = asyncio.create_task(submit(platform, part))
            await asyncio.to_thread(private_rabbitmq.ctl, "close_all_connections", "test")
            await submitting
        await eventually(lambda: completed(platform, 300), within=40)

    assert await states(platform) == {"completed": 300}
    assert await completions(platform) == each_once(300)


async def test_a_run_that_executes_while_its_connection_is_closed_by_force_goes_on_to_its_end(
    platform, settings, shop, private_rabbitmq
):
    at_the_gate = NewRun(id=new_id(), domain="shop", task="shop.wait_at_the_gate", args='{"name": "x"}')

    async with running(shop_service(settings, shop, concurrency=1), platform):
        await platform.submit(at_the_gate)
        await asyncio.wait_for(shop.entered.wait(), 10)
        await asyncio.to_thread(private_rabbitmq.ctl, "close_all_connections", "test")
        await submit(platform, additions(20))
        shop.gate.set()
        await eventually(lambda: completed(platform, 21), within=40)

    attempts = await platform.history.attempts(at_the_gate.id)
    assert [(attempt["attempt"], attempt["outcome"]) for attempt in attempts] == [(1, "completed")]
    assert (shop.done["x entered"], shop.done["x"]) == (1, 1)
    assert await completions(platform) == each_once(21)


async def test_a_broker_that_is_restarted_under_a_backlog_loses_nothing(platform, settings, shop, private_rabbitmq):
    await submit_many(platform)

    async with running(shop_service(settings, shop, concurrency=1), platform):
        await eventually(lambda: completed(platform, 1))
        await asyncio.to_thread(private_rabbitmq.restart)
        before = (await states(platform))["completed"]
        await eventually(lambda: completed(platform, MANY), within=90)

    assert before < MANY
    assert await states(platform) == {"completed": MANY}
    assert await completions(platform) == each_once(MANY)


async def test_a_broker_that_is_wiped_under_a_backlog_loses_nothing(
    platform, settings, shop, private_rabbitmq, record_property
):
    await submit_many(platform)
    held = await platform.transport.waiting("shop", Priority.NORMAL)

    async with running(shop_service(settings, shop, concurrency=1), platform):
        await eventually(lambda: completed(platform, 1))
        await asyncio.to_thread(private_rabbitmq.wipe)
        before, began = (await states(platform))["completed"], time.monotonic()
        await eventually(lambda: completed(platform, MANY), within=90)
        record_property("seconds_after_the_wipe", round(time.monotonic() - began, 1))

    assert held == MANY
    assert before < MANY
    assert await states(platform) == {"completed": MANY}
    assert await completions(platform) == each_once(MANY)


async def slowest_submit(platform: Platform, runs: Sequence[NewRun]) -> float:
    """The longest that anybody waited, one after the other."""
    slowest = 0.0
    for run in runs:
        began = time.monotonic()
        await platform.submit(run)
        slowest = max(slowest, time.monotonic() - began)
    return slowest


async def test_while_the_broker_is_down_runs_and_events_are_accepted_at_once_and_follow_when_it_is_back(
    platform, settings, shop, private_rabbitmq
):
    async with running(shop_service(settings, shop), platform):
        await submit(platform, additions(10))
        await eventually(lambda: completed(platform, 10))
        await asyncio.to_thread(private_rabbitmq.ctl, "stop_app")
        try:
            slowest, until = 0.0, time.monotonic() + 4
            # Longer than a rest after a refusal, so that the broker is tried again in between.
            while time.monotonic() < until:
                slowest = max(slowest, await slowest_submit(platform, additions(5)))
            accepted = sum((await states(platform)).values())
            began = time.monotonic()
            await platform.say(Envelope.of(OrderPlaced(order="o1"), source="/customers", id="1"), actor="test")
            said_within = time.monotonic() - began
        finally:
            await asyncio.to_thread(private_rabbitmq.ctl, "start_app")
        # The event is packed, thanked for, and shipped.
        await eventually(lambda: completed(platform, accepted + 3), within=40)

    assert (slowest < 1, said_within < 1) == (True, True), (slowest, said_within)
    assert await completions(platform) == each_once(accepted + 3)
    assert shop.done["shipped o1"] == shop.done["thanked for o1"] == 1


async def test_a_memory_alarm_delays_submits_no_longer_than_the_publish_deadline(
    platform, settings, shop, private_rabbitmq
):
    async with running(shop_service(settings, shop), platform):
        await submit(platform, additions(10))
        await eventually(lambda: completed(platform, 10))
        await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0")
        try:
            began, accepted, slowest = time.monotonic(), 10, 0.0
            while time.monotonic() < began + 10:
                slowest = max(slowest, await slowest_submit(platform, additions(10)))
                accepted += 10
        finally:
            await asyncio.to_thread(private_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")
        await eventually(lambda: completed(platform, accepted), within=40)

    assert slowest < rabbitmq.PUBLISH_SECONDS + 1
    assert await completions(platform) == each_once(accepted)
