"""Bulkheads and throttles, on PostgreSQL and the twin: so many at once, so many in a time, over all workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from behind import let_places_end

from carillon import Rate, Retry, Tasks, clock
from carillon.errors import ConfigurationError, NoRoomError, NoTurnError
from carillon.policies import Bulkhead, Policies, Throttle
from carillon.telemetry.metrics import Metrics
from carillon.testing import Rehearsal, eventually

TWICE = pytest.mark.parametrize("transport", ["postgres", "memory"])
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
PDF = Bulkhead("pdf", most=3, wait=timedelta(seconds=30))
NOW = Bulkhead("pdf", most=3, wait=timedelta(0))
HOURLY = Rate(1, per=timedelta(hours=1))


@pytest.fixture
async def others(platform, opens) -> AsyncIterator[list[Policies]]:
    """The policies of this process, and those of another one."""
    async with opens(platform.settings, name="other") as other:
        yield [Policies(platform, Metrics()), Policies(other, Metrics())]


class Press:
    """Sees how many use it at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.done = 0
        self.gate = asyncio.Event()

    async def use(self, policies: Policies, bulkhead: Bulkhead = PDF) -> None:
        async with policies.bulkhead(bulkhead):
            self.now += 1
            self.most = max(self.most, self.now)
            await self.gate.wait()
            # Lets the others in, if they may.
            await asyncio.sleep(0.01)
            self.now -= 1
            self.done += 1


@TWICE
async def test_no_more_than_so_many_at_once_in_two_processes_and_all_have_their_turn(others):
    press = Press()
    uses = [asyncio.create_task(press.use(policies)) for policies in others * 6]
    await eventually(lambda: asyncio.sleep(0, press.now == 3))
    press.gate.set()
    await asyncio.wait_for(asyncio.gather(*uses), 60)

    assert (press.most, press.done) == (3, 12)


@TWICE
async def test_who_finds_no_place_in_time_is_told_and_takes_none(others):
    here, there = others
    press = Press()
    uses = [asyncio.create_task(press.use(here)) for _ in range(3)]
    await eventually(lambda: asyncio.sleep(0, press.now == 3))
    for policies in (here, there):
        with pytest.raises(NoRoomError, match="no place of the bulkhead pdf was free within 0 s"):
            await press.use(policies, NOW)
    press.gate.set()
    await asyncio.gather(*uses)
    await press.use(there, NOW)

    assert press.done == 4
    labels = {"bulkhead": "pdf", "outcome": "refused"}
    assert there._metrics.registry.get_sample_value("carillon_bulkhead_places_total", labels) == 1


@TWICE
async def test_a_place_is_free_again_after_an_error_and_after_its_worker_died(others, platform):
    here, there = others
    lonely = Bulkhead("pdf", most=1, wait=timedelta(0))
    with pytest.raises(ValueError, match="jam"):
        async with here.bulkhead(lonely):
            raise ValueError("jam")
    press = Press()
    dead = asyncio.create_task(press.use(here, lonely))
    await eventually(lambda: asyncio.sleep(0, press.now == 1))
    with pytest.raises(NoRoomError):
        await press.use(there, lonely)
    await let_places_end(platform)
    press.gate.set()
    async with there.bulkhead(lonely):
        await dead
        with pytest.raises(NoRoomError):
            # The late end of the dead one left its own place, not ours.
            await press.use(here, lonely)

    assert press.done == 1


@TWICE
async def test_a_limit_of_one_process_asks_no_server_and_holds_in_it_alone(others, platform, monkeypatch):
    async def asked(*_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(platform.ledger.places, "take", asked)
    press, here_only = Press(), Bulkhead("cpu", here=2)
    uses = [asyncio.create_task(press.use(policies, here_only)) for policies in others * 5]
    await eventually(lambda: asyncio.sleep(0, press.now == 4))
    press.gate.set()
    await asyncio.gather(*uses)

    assert (press.most, press.done) == (4, 10)


@TWICE
async def test_turns_of_all_processes_are_counted_together(others):
    three = Throttle("crm", Rate(1, per=timedelta(hours=1), burst=3), wait=timedelta(0))
    ends = await asyncio.gather(*(policies.turn(three) for policies in others * 5), return_exceptions=True)

    refused = [end for end in ends if isinstance(end, NoTurnError)]
    assert len(refused) == 7
    assert all(timedelta(minutes=59) < error.retry_after <= timedelta(hours=1) for error in refused)
    counted = [
        policies._metrics.registry.get_sample_value(
            "carillon_throttle_turns_total", {"throttle": "crm", "outcome": outcome}
        )
        for outcome in ("taken", "refused")
        for policies in others
    ]
    assert sum(counted[:2]) == 3
    assert sum(counted[2:]) == 7


@TWICE
async def test_throttles_are_apart_and_one_that_is_refused_takes_no_turn(others):
    for name in ("crm", "erp"):
        await others[0].turn(Throttle(name, HOURLY))
    errors = []
    for _ in range(3):
        with pytest.raises(NoTurnError) as caught:
            await others[1].turn(Throttle("crm", HOURLY))
        errors.append(caught.value.retry_after)

    assert all(timedelta(minutes=59) < after <= timedelta(hours=1) for after in errors)


async def test_rehearsed_runs_wait_for_their_turn_and_come_back_for_one_that_is_far():
    tasks, moments = Tasks("shop"), []
    slowly = Throttle("crm", Rate(6, per=timedelta(minutes=1)), wait=timedelta(seconds=25))

    @tasks.task(retry=Retry(attempts=3))
    async def update(*, policies: Policies) -> None:
        """Update. Safe to run twice: it counts."""
        await policies.turn(slowly)
        moments.append((clock.now() - NOON).total_seconds())

    async with Rehearsal(tasks, at=NOON) as rehearsal:
        runs = [await update.kiq() for _ in range(4)]
        await rehearsal.settle()
        states = sorted(rehearsal.run(run).state for run in runs)
        await rehearsal.advance(timedelta(minutes=2))
        ends = [rehearsal.run(run) for run in runs]

    assert states == ["completed", "retrying", "running", "running"]
    assert moments == pytest.approx([0, 10, 20, 30], abs=0.5)
    assert {end.state for end in ends} == {"completed"}


async def test_what_stays_too_long_at_a_bulkhead_is_ended():
    tasks = Tasks("shop")

    @tasks.task(retry=Retry(attempts=1))
    async def render(*, policies: Policies) -> None:
        """Render for ever. Safe to run twice: it only waits."""
        async with policies.bulkhead(PDF):
            await asyncio.Event().wait()

    async with Rehearsal(tasks, at=NOON) as rehearsal:
        run = await render.kiq()
        await rehearsal.advance(PDF.timeout)
        ended, left = rehearsal.run(run), dict(rehearsal.platform.store.places)

    assert (ended.state, ended.error["type"], left) == ("failed", "TimeoutError", {})


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Bulkhead, {}, "the bulkhead x limits nothing"),
        (Bulkhead, {"most": 0}, "most is 0"),
        (Bulkhead, {"here": 1, "wait": timedelta(hours=1)}, "not less than nothing and at most 10 minutes"),
        (Bulkhead, {"here": 1, "timeout": 3}, "timeout=3; it must be a timedelta"),
        (Throttle, {"rate": 5}, r"rate=5; write Rate\(100"),
        (Throttle, {"rate": HOURLY, "wait": -timedelta(1)}, "not less than nothing"),
    ],
)
def test_what_could_not_be_kept_is_refused(kind, options, words):
    with pytest.raises(ConfigurationError, match=words):
        kind("x", **options)
