"""Effects that happen once for each key, on PostgreSQL and the twin: replayed, refused, taken over and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from behind import let_good_values_age, let_leases_end, let_results_be_old
from pydantic import BaseModel

from carillon import Retry, Service, Tasks
from carillon.errors import (
    ConfigurationError,
    EffectConflictError,
    EffectInFlightError,
    InvalidArgumentsError,
    PermanentError,
)
from carillon.policies import Effect, Policies
from carillon.telemetry.metrics import Metrics
from carillon.testing import Rehearsal, eventually, running
from carillon.testing.memory import MemoryPlatform

TWICE = pytest.mark.parametrize("transport", ["postgres", "memory"])


class Payment(BaseModel):
    order: str
    cents: int
    number: int


CHARGE = Effect("charge", returns=Payment, keep=timedelta(days=30))


class Bank:
    """Counts what it was asked to do, and does not notice what it did before."""

    def __init__(self) -> None:
        self.charged: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def charge(self, order: str, cents: int) -> Payment:
        self.charged.append(order)
        number = len(self.charged)
        await self.gate.wait()
        return Payment(order=order, cents=cents, number=number)

    async def refuse(self, order: str, cents: int) -> Payment:
        self.charged.append(order)
        raise ConnectionError("no route")


@pytest.fixture
async def others(platform, opens) -> AsyncIterator[list[Policies]]:
    """The policies of this process, and those of another one."""
    async with opens(platform.settings, name="other") as other:
        yield [Policies(platform, Metrics()), Policies(other, Metrics())]


@pytest.fixture
def bank() -> Bank:
    return Bank()


def counted(policies: Policies, outcome: str) -> float | None:
    labels = {"effect": "charge", "outcome": outcome}
    return policies._metrics.registry.get_sample_value("carillon_effects_total", labels)


@TWICE
async def test_the_same_key_is_one_charge_and_its_result_is_given_to_all(others, bank):
    here, there = others
    first = await here.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12)
    again = await there.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12)
    other = await there.idempotent(CHARGE, key="o2")(bank.charge, "o2", 12)

    assert first == again == Payment(order="o1", cents=12, number=1)
    assert (other.number, bank.charged) == (2, ["o1", "o2"])
    assert (counted(here, "called"), counted(there, "known"), counted(there, "called")) == (1, 1, 1)


@TWICE
async def test_names_are_apart(others, bank):
    refund = Effect("refund", returns=Payment)
    for effect in (CHARGE, refund):
        await others[0].idempotent(effect, key="o1")(bank.charge, "o1", 12)

    assert bank.charged == ["o1", "o1"]


@TWICE
async def test_other_arguments_under_one_key_are_refused_also_while_it_is_under_way(others, bank):
    here, there = others
    bank.gate.clear()
    under_way = asyncio.create_task(here.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12))
    await eventually(lambda: asyncio.sleep(0, bank.charged))
    errors = []
    for _ in range(2):
        with pytest.raises(EffectConflictError, match="'o1' of the effect charge was used before with other arg") as e:
            await there.idempotent(CHARGE, key="o1")(bank.charge, "o1", 13)
        errors.append(e.value)
        bank.gate.set()
        await under_way

    assert all(isinstance(error, PermanentError) for error in errors)
    assert bank.charged == ["o1"]


@TWICE
async def test_of_many_calls_at_once_one_is_made_and_the_others_are_told_when_to_come_back(others, bank):
    bank.gate.clear()
    calls = [
        asyncio.create_task(policies.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12)) for policies in others * 20
    ]

    async def all_but_one_are_told() -> bool:
        return sum(call.done() for call in calls) == 39

    await eventually(all_but_one_are_told)
    bank.gate.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    later = await others[1].idempotent(CHARGE, key="o1")(bank.charge, "o1", 12)

    told = [end for end in ends if isinstance(end, EffectInFlightError)]
    assert len(told) == 39
    assert all(timedelta(seconds=50) < error.retry_after <= timedelta(seconds=65) for error in told)
    assert bank.charged == ["o1"]
    assert later == Payment(order="o1", cents=12, number=1)


@TWICE
async def test_an_effect_whose_owner_died_is_taken_over_and_a_late_end_does_not_replace_its_result(
    others, bank, platform
):
    here, there = others
    late = Bank()
    late.charged.append("o0")
    for each in (bank, late):
        each.gate.clear()
    slow = asyncio.create_task(here.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12))
    await eventually(lambda: asyncio.sleep(0, bank.charged))
    await let_leases_end(platform)
    with pytest.raises(EffectConflictError):
        await there.idempotent(CHARGE, key="o1")(late.charge, "o1", 13)
    over = asyncio.create_task(there.idempotent(CHARGE, key="o1")(late.charge, "o1", 12))
    await eventually(lambda: asyncio.sleep(0, "o1" in late.charged))
    bank.gate.set()
    with pytest.raises(EffectInFlightError):
        await slow
    late.gate.set()
    taken = await over

    assert taken.number == 2
    assert await here.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12) == taken
    assert counted(here, "overtaken") == 1


@TWICE
async def test_a_call_that_fails_keeps_nothing_and_the_next_one_calls_again(others, bank):
    here, there = others
    with pytest.raises(ConnectionError):
        await here.idempotent(CHARGE, key="o1")(bank.refuse, "o1", 12)
    paid = await there.idempotent(CHARGE, key="o1")(bank.charge, "o1", 12)

    assert (paid.number, bank.charged) == (2, ["o1", "o1"])
    assert counted(here, "failed") == 1


@TWICE
async def test_what_is_no_longer_to_be_kept_is_done_anew_and_the_sweeper_forgets_it(others, bank, platform):
    for key in ("o1", "o2"):
        await others[0].idempotent(CHARGE, key=key)(bank.charge, key, 12)
    await let_results_be_old(platform)
    anew = await others[0].idempotent(CHARGE, key="o1")(bank.charge, "o1", 13)
    forgotten = await platform.ledger.effects.forget()

    assert (anew.number, forgotten) == (3, 1)
    assert (await others[0].idempotent(CHARGE, key="o1")(bank.charge, "o1", 13)).number == 3


@TWICE
async def test_a_worker_forgets_what_is_no_longer_to_be_kept(others, bank, platform):
    tasks, place = Tasks("shop"), ("users", "7")

    @tasks.task()
    async def rest() -> None:
        """Rest. Safe to run twice: it only returns."""

    await others[0].idempotent(CHARGE, key="o1")(bank.charge, "o1", 12)
    await platform.ledger.last_good.keep(place, "7", timedelta(days=1))
    for age in (let_results_be_old, lambda platform: let_good_values_age(platform, timedelta(days=2))):
        await age(platform)

    async def is_empty() -> bool:
        if isinstance(platform, MemoryPlatform):
            return not platform.store.effects and not platform.store.last_good
        counted = "select (select count(*) from carillon.effects) + (select count(*) from carillon.last_good)"
        return await platform.ledger.pool.fetchval(counted) == 0

    before = await is_empty()
    async with running(Service(name="shop", settings=platform.settings, tasks=tasks), platform):
        await eventually(is_empty)

    assert not before


@TWICE
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "cannot be kept"),
        ("x" * 70_000, "the most is 65,536; put it into storage"),
        (float("nan"), "holds NaN"),
        ("\0", "the character NUL"),
    ],
)
async def test_a_result_that_cannot_be_kept_is_refused_and_its_effect_is_not_repeated_at_once(others, value, words):
    anything, calls = Effect("anything", returns=Any), []

    async def do() -> Any:
        calls.append(1)
        return value

    with pytest.raises(PermanentError, match=words):
        await others[0].idempotent(anything, key="k")(do)
    with pytest.raises(EffectInFlightError):
        await others[1].idempotent(anything, key="k")(do)

    assert calls == [1]


@TWICE
async def test_keys_and_arguments_that_nothing_could_be_told_by_are_refused_before_the_call(others, bank):
    with pytest.raises(InvalidArgumentsError, match="the arguments of the effect charge cannot be compared"):
        await others[0].idempotent(CHARGE, key="o1")(bank.charge, object(), 12)
    for key in ("", "x" * 256, "a\0b"):
        with pytest.raises(InvalidArgumentsError):
            others[0].idempotent(CHARGE, key=key)

    assert bank.charged == []


async def test_a_rehearsed_run_that_fails_after_its_charge_does_not_charge_again():
    tasks, bank = Tasks("shop"), Bank()

    @tasks.task(retry=Retry(attempts=3))
    async def pay(order: str, *, policies: Policies, bank: Bank) -> int:
        """Charge, and stumble once. Safe to run twice: the charge is idempotent."""
        payment = await policies.idempotent(CHARGE, key=order)(bank.charge, order, 12)
        if len(seen) == 0:
            seen.append(payment)
            raise ConnectionError("stumbled after the charge")
        return payment.number

    seen: list[Payment] = []
    async with Rehearsal(tasks, resources={Bank: bank}) as rehearsal:
        run = await pay.kiq("o1")
        await rehearsal.advance(timedelta(seconds=10))
        ended = rehearsal.run(run)

    assert (ended.state, ended.result, bank.charged) == ("completed", 1, ["o1"])


async def test_a_call_that_hangs_is_ended_and_may_be_made_again():
    tasks, bank = Tasks("shop"), Bank()
    bank.gate.clear()

    @tasks.task(retry=Retry(attempts=2, base=timedelta(seconds=1), cap=timedelta(seconds=1)))
    async def pay(order: str, *, policies: Policies, bank: Bank) -> int:
        """Charge. Safe to run twice: the charge is idempotent."""
        return (await policies.idempotent(CHARGE, key=order)(bank.charge, order, 12)).number

    async with Rehearsal(tasks, resources={Bank: bank}) as rehearsal:
        run = await pay.kiq("o1")
        await rehearsal.advance(CHARGE.timeout)
        waiting = rehearsal.run(run)
        bank.gate.set()
        await rehearsal.advance(timedelta(seconds=2))
        ended = rehearsal.run(run)

    assert (waiting.state, waiting.error["type"]) == ("retrying", "TimeoutError")
    assert (ended.state, ended.result) == ("completed", 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a b"}, "no effect can be named 'a b'"),
        ({"keep": 5}, "keep=5; it must be a timedelta"),
        ({"returns": Bank}, "cannot be read from JSON"),
    ],
)
def test_an_effect_that_could_not_be_kept_is_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        Effect(**{"name": "charge", "returns": dict, **options})
