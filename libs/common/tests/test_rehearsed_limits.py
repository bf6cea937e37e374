"""Rehearsing tasks that have limits: what waits for them, why, and when it goes on by the held clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from carillon import Limits, Rate, Retry, Tasks, clock
from carillon.errors import ConfigurationError
from carillon.ledger.audit import Actor
from carillon.testing import Rehearsal

ADA = Actor("ada", "a test")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HALF = 30 * SECOND
INSTANT = timedelta(microseconds=1)


class Line:
    """The telephone line of the test: who called, and when."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, datetime]] = []

    @property
    def who(self) -> list[str]:
        return [who for who, _ in self.calls]

    @property
    def minutes(self) -> list[float]:
        return [(at - NOON) / MINUTE for _, at in self.calls]


def telephone(limits: Limits | None) -> Tasks:
    """A domain whose `call` has these limits, and whose `write` has none."""
    tasks = Tasks("telephone")

    @tasks.task(limits=limits, retry=Retry(attempts=1))
    async def call(who: str, seconds: float = 0, *, line: Line) -> None:
        """Call somebody. Safe to run twice: it only notes it."""
        line.calls.append((who, clock.now()))
        await asyncio.sleep(seconds)

    @tasks.task(timeout=timedelta(days=365))
    async def write(who: str, seconds: float = 0, *, line: Line) -> None:
        """Write to somebody. Safe to run twice: it only notes it."""
        line.calls.append((who, clock.now()))
        await asyncio.sleep(seconds)

    return tasks


@pytest.fixture
def line() -> Line:
    return Line()


def rehearsed(tasks: Tasks, line: Line, **options: Any) -> Rehearsal:
    return Rehearsal(tasks, resources={Line: line}, at=NOON, **options)


@asynccontextmanager
async def held(rehearsal: Rehearsal) -> AsyncIterator[None]:
    """Let nothing of the domain start until the block ends."""
    steering = rehearsal.platform.ledger.steering
    await steering.pause("telephone", ADA)
    yield
    await rehearsal.settle()
    await steering.resume("telephone", ADA)
    await rehearsal.settle()


async def test_no_more_runs_of_a_task_begin_than_it_allows_and_the_next_when_one_ends(line):
    tasks = telephone(Limits(concurrency=2))
    call = tasks.declared["telephone.call"]
    async with rehearsed(tasks, line) as rehearsal:
        for who in "abcde":
            await call.kiq(who, 60)
        await rehearsal.settle()
        waiting = [(run.state, run.awaited_limit) for run in rehearsal.runs()]
        await rehearsal.advance(5 * MINUTE)
        states = {run.state for run in rehearsal.runs()}

    why = "a limit of telephone.call: 2 of 2 runs"
    assert waiting == [("running", None)] * 2 + [("queued", why)] * 3
    assert (line.who, line.minutes) == (list("abcde"), [0, 0, 1, 1, 2])
    assert states == {"completed"}


async def test_a_rate_lets_the_next_one_in_at_its_very_moment(line):
    tasks = telephone(Limits(rate=Rate(2, per=MINUTE)))
    call = tasks.declared["telephone.call"]
    async with rehearsed(tasks, line) as rehearsal:
        for who in "abcd":
            last = await call.kiq(who)
        await rehearsal.advance(HALF - INSTANT)
        before = list(line.who)
        why = rehearsal.run(last).awaited_limit
        await rehearsal.advance(INSTANT)
        then = list(line.who)
        await rehearsal.advance(5 * MINUTE)

    assert (before, then) == (["a"], ["a", "b"])
    assert why == "the rate of telephone.call: 2 starts in 60 s, the next in 0.0 s"
    assert line.minutes == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("number", [3, 7, 11])
async def test_a_rate_with_a_burst_lets_as_many_in_as_it_has_starts(line, number):
    tasks = telephone(Limits(rate=Rate(number, per=SECOND, burst=number)))
    call = tasks.declared["telephone.call"]
    async with rehearsed(tasks, line) as rehearsal:
        for _ in range(3 * number):
            await call.kiq("a")
        await rehearsal.advance(MINUTE)

    seconds = [(at - NOON) / SECOND for _, at in line.calls]
    assert seconds[:number] == [0] * number
    assert seconds[number:] == pytest.approx([each / number for each in range(1, 2 * number + 1)], abs=1e-4)


async def test_keys_take_turns_and_each_has_its_own_slots_and_starts(line):
    limits = Limits(key="who", per_key=1, rate_per_key=Rate(1, per=MINUTE), concurrency=2)
    tasks = telephone(limits)
    call = tasks.declared["telephone.call"]
    async with rehearsed(tasks, line) as rehearsal:
        async with held(rehearsal):
            for who in "aaaabbc":
                await call.kiq(who, 90 if who == "b" else 1)
        why = [run.awaited_limit for run in rehearsal.runs() if run.state == "queued"]
        await rehearsal.advance(10 * MINUTE)

    assert "a limit of telephone.call: 2 of 2 runs" in why
    at = {who: [minute for each, minute in zip(line.who, line.minutes, strict=True) if each == who] for who in "abc"}
    assert at == {"a": [0, 1, 2, 3], "b": [0, 1.5], "c": [pytest.approx(1 / 60)]}


async def test_within_a_key_the_most_urgent_goes_first_and_one_turn_in_ten_to_the_longest_waiting(line):
    tasks = telephone(Limits(key="who", per_key=1))
    call = tasks.declared["telephone.call"]
    async with rehearsed(tasks, line) as rehearsal:
        async with held(rehearsal):
            low = await call.options(priority="low").kiq("a", 60)
            await rehearsal.advance(SECOND)
            urgent = [await call.options(priority="urgent").kiq("a", 60) for _ in range(11)]
        await rehearsal.advance(20 * MINUTE)
        starts = {rehearsal.run(run).attempts[0].started_at: run.task_id for run in (low, *urgent)}

    in_order = [starts[at] for at in sorted(starts)]
    assert in_order == [run.task_id for run in (*urgent[:9], low, *urgent[9:])]


async def test_a_limit_of_the_domain_holds_over_its_tasks_which_take_turns(line):
    tasks = telephone(None)
    call, write = tasks.declared.values()
    async with rehearsed(tasks, line, limit=1) as rehearsal:
        async with held(rehearsal):
            for _ in range(3):
                await call.kiq("call", 60)
            for _ in range(3):
                last = await write.kiq("write", 60)
        why = rehearsal.run(last).awaited_limit
        await rehearsal.advance(10 * MINUTE)

    assert why == "a limit of the domain telephone: 1 of 1 runs"
    assert line.who == ["call", "write"] * 3
    assert line.minutes == [0, 1, 2, 3, 4, 5]


async def test_tasks_take_turns_also_while_the_clock_stands_still(line):
    tasks = telephone(None)
    call, write = tasks.declared.values()
    async with rehearsed(tasks, line, limit=1) as rehearsal, held(rehearsal):
        for task in (call, call, call, write, write, write):
            await task.kiq(task.function_name)

    assert line.who == ["call", "write"] * 3


def test_a_limit_of_the_domain_that_could_not_be_kept_is_refused_in_words(line):
    with pytest.raises(ConfigurationError, match="limit is 0; it is a whole number from 1"):
        rehearsed(telephone(None), line, limit=0)


async def test_what_waited_for_a_worker_uses_its_start_when_it_starts(line):
    tasks = telephone(Limits(rate=Rate(1, per=MINUTE)))
    call, write = tasks.declared.values()
    async with rehearsed(tasks, line, concurrency=1) as rehearsal:
        await write.kiq("busy", 590)
        await rehearsal.settle()
        for who in "abc":
            await call.kiq(who)
        await rehearsal.advance(15 * MINUTE)

    busy_until = 590 / 60
    assert line.who == ["busy", "a", "b", "c"]
    assert line.minutes[1:] == pytest.approx([busy_until, busy_until + 1, busy_until + 2])


async def cancelled(rehearsal: Rehearsal, run: Any) -> None:
    await rehearsal.cancel(run)


async def paused(rehearsal: Rehearsal, run: Any) -> None:
    await rehearsal.platform.ledger.steering.pause_run(rehearsal.run(run).id, ADA)


async def expired(rehearsal: Rehearsal, run: Any) -> None:
    await rehearsal.advance(MINUTE)


@pytest.mark.parametrize("goes", [cancelled, paused, expired])
async def test_what_was_let_in_and_will_not_start_gives_its_slot_to_the_next(line, goes):
    tasks = telephone(Limits(concurrency=1))
    call, write = tasks.declared.values()
    async with rehearsed(tasks, line, concurrency=1) as rehearsal:
        await write.kiq("busy", 3600)
        await rehearsal.settle()
        first = await call.options(expires=MINUTE).kiq("first")
        await rehearsal.settle()
        second = await call.kiq("second")
        await rehearsal.settle()
        before = [rehearsal.run(run).awaited_limit for run in (first, second)]
        await goes(rehearsal, first)
        await rehearsal.settle()
        after = rehearsal.run(second).awaited_limit
        await rehearsal.advance(60 * MINUTE)

    assert before == [None, "a limit of telephone.call: 1 of 1 runs"]
    assert after is None
    assert line.who == ["busy", "second"]


async def test_a_task_that_is_held_gives_its_slots_of_the_domain_to_the_others(line):
    tasks = telephone(None)
    call, write = tasks.declared.values()
    async with rehearsed(tasks, line, concurrency=1, limit=2) as rehearsal:
        await write.kiq("busy", 60)
        await call.kiq("held")
        await rehearsal.settle()
        next_ = await write.kiq("next")
        await rehearsal.settle()
        before = rehearsal.run(next_).awaited_limit
        await rehearsal.platform.ledger.steering.pause("telephone.call", ADA)
        await rehearsal.settle()
        after = rehearsal.run(next_).awaited_limit
        await rehearsal.advance(MINUTE)

    assert before == "a limit of the domain telephone: 2 of 2 runs"
    assert after is None
    assert line.who == ["busy", "next"]


async def test_nothing_happens_in_a_year_in_which_nothing_ends(line, monkeypatch):
    monkeypatch.setattr("carillon.testing.rehearsal.MOST_STOPS", 20)
    tasks = telephone(None)
    write = tasks.declared["telephone.write"]
    async with rehearsed(tasks, line, limit=1) as rehearsal:
        for who in "ab":
            await write.kiq(who, timedelta(days=365).total_seconds())
        await rehearsal.advance(timedelta(days=364))
        states = [run.state for run in rehearsal.runs()]

    assert states == ["running", "queued"]
