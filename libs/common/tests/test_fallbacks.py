"""Fallbacks, on PostgreSQL and the twin: who answers, what is degraded, and how old what was good last is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from behind import let_good_values_age
from pydantic import BaseModel

from carillon import Retry, Tasks
from carillon.errors import (
    Cancel,
    ConfigurationError,
    InvalidArgumentsError,
    NothingAnsweredError,
    PermanentError,
    Snooze,
    TransientError,
)
from carillon.policies import Answer, Fallback, Policies
from carillon.telemetry.metrics import Metrics
from carillon.testing import Rehearsal

TWICE = pytest.mark.parametrize("transport", ["postgres", "memory"])


class User(BaseModel):
    name: str


ADA, EVE = User(name="ada"), User(name="eve")
USERS = Fallback("users", returns=User, keep=timedelta(days=2))


@pytest.fixture
async def others(platform, opens) -> AsyncIterator[list[Policies]]:
    """The policies of this process, and those of another one."""
    async with opens(platform.settings, name="other") as other:
        yield [Policies(platform, Metrics()), Policies(other, Metrics())]


def says(value: Any) -> Callable[[], Awaitable[Any]]:
    """A source that answers a value, or raises an error."""

    async def source() -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return source


def counted(policies: Policies, source: str) -> float | None:
    labels = {"fallback": "users", "source": source}
    return policies._metrics.registry.get_sample_value("carillon_fallback_answers_total", labels)


DOWN = says(ConnectionError("no route"))


@TWICE
async def test_the_first_source_answers_fresh_and_the_others_are_not_asked(others):
    answer = await others[0].fallback(USERS, key="7")(api=says(ADA), replica=says(AssertionError("asked")))

    assert answer == Answer(ADA, "api", degraded=False, reason=None, age_seconds=0.0)
    assert counted(others[0], "api") == 1


@TWICE
async def test_the_next_source_answers_for_one_that_fails_and_that_is_never_kept_as_good(others, platform):
    here, there = others
    answer = await here.fallback(USERS, key="7")(api=DOWN, replica=says(EVE))
    with pytest.raises(NothingAnsweredError, match="nothing was kept for this key: api: ConnectionError: no route"):
        await there.fallback(USERS, key="7")(api=DOWN)

    assert answer == Answer(EVE, "replica", degraded=True, reason="api: ConnectionError: no route", age_seconds=0.0)
    assert (counted(here, "replica"), counted(there, "none")) == (1, 1)


@TWICE
async def test_what_was_good_last_is_given_everywhere_with_its_age(others, platform):
    here, there = others
    await here.fallback(USERS, key="7")(api=says(ADA))
    await here.fallback(USERS, key="8")(api=says(EVE))
    await let_good_values_age(platform, timedelta(hours=30))
    degraded = await here.fallback(USERS, key="7")(api=DOWN, replica=says(EVE))
    answer = await there.fallback(USERS, key="7")(api=DOWN, replica=says(TimeoutError("slow")))

    assert degraded.value == EVE
    assert (answer.value, answer.source, answer.degraded) == (ADA, "last good", True)
    assert answer.reason == "api: ConnectionError: no route; replica: TimeoutError: slow"
    assert 30 * 3600 <= answer.age_seconds < 31 * 3600
    assert counted(there, "last good") == 1


@TWICE
async def test_a_newer_good_value_takes_the_place_of_the_older(others, platform):
    here, there = others
    await here.fallback(USERS, key="7")(api=says(ADA))
    await let_good_values_age(platform, timedelta(hours=30))
    await there.fallback(USERS, key="7")(api=says(EVE))
    answer = await here.fallback(USERS, key="7")(api=DOWN)

    assert answer.value == EVE
    assert answer.age_seconds < 3600


@TWICE
async def test_what_is_too_old_is_good_no_more_and_the_sweeper_forgets_it(others, platform):
    await others[0].fallback(USERS, key="7")(api=says(ADA))
    await let_good_values_age(platform, USERS.keep)
    with pytest.raises(NothingAnsweredError):
        await others[0].fallback(USERS, key="7")(api=DOWN)

    assert await platform.ledger.last_good.forget() == 1


@TWICE
@pytest.mark.parametrize("error", [PermanentError("no such user"), Cancel("unwanted"), Snooze(5)])
async def test_an_answer_that_is_an_error_is_raised_and_nothing_stands_in_for_it(others, error):
    await others[0].fallback(USERS, key="7")(api=says(ADA))

    with pytest.raises(type(error)):
        await others[0].fallback(USERS, key="7")(api=says(error), replica=says(EVE))


@TWICE
async def test_where_nothing_answers_it_says_when_to_come_back(others):
    later = [says(TransientError("busy", retry_after=timedelta(minutes=minutes))) for minutes in (9, 4)]

    with pytest.raises(NothingAnsweredError) as caught:
        await others[0].fallback(USERS, key="7")(api=later[0], replica=later[1], file=DOWN)

    assert caught.value.retry_after == timedelta(minutes=4)


@TWICE
async def test_an_answer_is_given_though_it_cannot_be_kept(others, platform, monkeypatch):
    long = User(name="a" * 70_000)
    too_long = await others[0].fallback(USERS, key="7")(api=says(long))

    async def away(*_: object) -> None:
        raise ConnectionError("the ledger is away")

    for part in ("keep", "read"):
        monkeypatch.setattr(platform.ledger.last_good, part, away)
    unkept = await others[0].fallback(USERS, key="8")(api=says(ADA))
    with pytest.raises(NothingAnsweredError):
        await others[0].fallback(USERS, key="8")(api=DOWN)

    assert (too_long.value, unkept.value) == (long, ADA)
    assert await others[1]._fallbacks.last_good.read(("users", "7")) is None


@TWICE
async def test_no_source_is_refused(others):
    with pytest.raises(InvalidArgumentsError, match="the fallback users was given no source"):
        await others[0].fallback(USERS, key="7")()


async def test_a_rehearsed_run_answers_degraded_with_its_age_when_its_source_hangs():
    tasks, gate = Tasks("shop"), asyncio.Event()
    gate.set()

    @tasks.task(retry=Retry(attempts=1))
    async def fetch(user: str, *, policies: Policies) -> Answer[User]:
        """Fetch. Safe to run twice: it only reads."""

        async def api() -> User:
            await gate.wait()
            return ADA

        return await policies.fallback(USERS, key=user)(api=api)

    async with Rehearsal(tasks) as rehearsal:
        fresh = await fetch.kiq("7")
        await rehearsal.advance(timedelta(hours=1))
        gate.clear()
        stale = await fetch.kiq("7")
        await rehearsal.advance(USERS.timeout)
        results = [rehearsal.run(run).result for run in (fresh, stale)]

    assert results[0] == {
        "value": {"name": "ada"}, "source": "api", "degraded": False, "reason": None, "age_seconds": 0.0
    }  # fmt: skip
    assert (results[1]["value"], results[1]["degraded"], results[1]["reason"]) == (
        {"name": "ada"}, True, "api: TimeoutError"
    )  # fmt: skip
    assert results[1]["age_seconds"] == 3610.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Users"}, "no fallback can be named 'Users'"),
        ({"keep": timedelta(days=-1)}, "it must be a timedelta, more than nothing"),
        ({"timeout": None}, "timeout=None; it must be a timedelta"),
        ({"returns": asyncio.Event}, "cannot be read from JSON"),
    ],
)
def test_a_fallback_that_could_not_be_kept_is_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        Fallback(**{"name": "users", "returns": User, **options})
