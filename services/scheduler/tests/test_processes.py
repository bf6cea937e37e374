"""Several schedulers as real processes: one leads, another takes over, nothing is fired twice or left without a row."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import httpx2

from carillon.testing.eventually import eventually

SECOND = timedelta(seconds=1)


async def leader_of(rows) -> int:
    return await rows.one("select pid from scheduler.leaders order by epoch desc limit 1") or 0


async def other_leader(rows, pid: int, within: float) -> float:
    """How long it took until somebody else led."""
    began = time.monotonic()

    async def changed() -> bool:
        return await leader_of(rows) != pid

    await eventually(changed, within=within)
    return time.monotonic() - began


async def test_two_schedulers_fire_each_due_time_once_and_the_second_takes_over_from_a_killed_one(start, rows) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)
    schedulers = {process.pid: process for process in (await start(), await start())}
    await rows.until_fired("heartbeat", 3)
    leader = await leader_of(rows)

    schedulers[leader].send(signal.SIGKILL)
    seconds = await other_leader(rows, leader, within=5)
    before = len(await rows.fires("heartbeat"))
    fired = await rows.until_fired("heartbeat", before + 3)

    assert seconds < 5
    await each_second_has_one_row(rows, fired[0], fired[-1])
    assert len(await rows.events("heartbeat")) == len(await rows.fires("heartbeat"))


async def test_a_scheduler_that_is_stopped_is_replaced_and_fires_nothing_when_it_continues(start, rows) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)
    schedulers = {process.pid: process for process in (await start(), await start())}
    await rows.until_fired("heartbeat", 2)
    leader = await leader_of(rows)

    schedulers[leader].send(signal.SIGSTOP)
    seconds = await other_leader(rows, leader, within=15)
    schedulers[leader].send(signal.SIGCONT)
    before = len(await rows.fires("heartbeat"))
    fired = await rows.until_fired("heartbeat", before + 4)

    assert seconds < 15
    assert await leader_of(rows) != leader
    await each_second_has_one_row(rows, fired[0], fired[-1])
    assert len(await rows.events("heartbeat")) == len(await rows.fires("heartbeat"))


async def test_a_scheduler_that_ends_in_order_hands_over_within_two_seconds(start, rows) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)
    schedulers = {process.pid: process for process in (await start(), await start())}
    await rows.until_fired("heartbeat")
    leader = await leader_of(rows)

    schedulers[leader].send(signal.SIGTERM)

    assert await other_leader(rows, leader, within=5) < 3
    assert await schedulers[leader].ended() == 0


async def test_a_restart_after_a_downtime_fires_the_latest_and_accounts_for_the_others(start, rows) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)
    first = await start()
    await rows.until_fired("heartbeat", 2)
    os.kill(first.pid, signal.SIGKILL)
    await first.ended()
    last = (await rows.fires("heartbeat"))[-1]

    async def three_seconds_passed() -> bool:
        return await rows.one("select now() > $1::timestamptz + interval '3 seconds'", last)

    await eventually(three_seconds_passed)
    await start()
    fired = await rows.until_fired("heartbeat", len(await rows.fires("heartbeat")) + 2)

    assert await rows.fires("heartbeat", "coalesced") != []
    await each_second_has_one_row(rows, fired[0], fired[-1])


async def test_a_scheduler_is_ready_shows_its_numbers_and_is_not_ready_without_its_table(start, rows) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)
    url = await (await start()).url()
    await rows.until_fired("heartbeat", 2)

    async with httpx2.AsyncClient(base_url=url) as client:
        ready, metrics = await client.get("/health/ready"), (await client.get("/metrics")).text
        await rows.connection.execute("alter table carillon.schedules rename to hidden")

        async def not_ready() -> object:
            answer = await client.get("/health/ready")
            return answer.json()["missing"] if answer.status_code == 503 else None

        missing = await eventually(not_ready)

    assert (ready.status_code, ready.json()["missing"]) == (200, [])
    assert 'carillon_scheduler_fires_total{outcome="fired"}' in metrics
    assert "carillon_scheduler_last_tick_seconds" in metrics
    assert "carillon.schedules" in str(missing)


async def each_second_has_one_row(rows, first, last) -> None:
    """Fires are unique by the table; here it is that none is missing either."""
    query = "select count(*) from carillon.fires where schedule = 'heartbeat' and fire_at between $1 and $2"
    assert await rows.one(query, first, last) == (last - first) / SECOND + 1
