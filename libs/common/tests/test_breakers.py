"""Circuit breakers, on PostgreSQL and the twin: shared by all workers, with one probe, and in the runs of a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from behind import let_pauses_end, let_probes_die, said_of_type
from hypothesis import given
from hypothesis import strategies as st

from carillon import Retry, Service, Tasks
from carillon.contracts import BreakerChanged
from carillon.errors import Cancel, CircuitOpenError, ConfigurationError, PermanentError, Snooze
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.policies import Breaker, Policies
from carillon.policies.circuit import Circuit, CircuitState, failed, probing
from carillon.telemetry.metrics import Metrics
from carillon.testing import Rehearsal, eventually, running

TWICE = pytest.mark.parametrize("transport", ["postgres", "memory"])
BANK = Breaker("bank", failures=3, pause=timedelta(seconds=30), longest_pause=timedelta(seconds=100))
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
async def others(platform, opens) -> AsyncIterator[list[Policies]]:
    """The policies of this process, and those of another one."""
    async with opens(platform.settings, name="other") as other:
        yield [Policies(platform, Metrics()), Policies(other, Metrics())]


async def call(policies: Policies, error: BaseException | None = None, breaker: Breaker = BANK) -> str:
    async with policies.breaker(breaker):
        if error is not None:
            raise error
        return "paid"


async def break_it(policies: Policies, breaker: Breaker = BANK) -> None:
    for _ in range(breaker.failures):
        with pytest.raises(ConnectionError):
            await call(policies, ConnectionError("no route"), breaker)


async def refused(policies: Policies, breaker: Breaker = BANK) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as caught:
        await call(policies, breaker=breaker)
    return caught.value


def forget(*all_: Policies) -> None:
    """Let what was seen be older than a second."""
    for policies in all_:
        for view in policies._breakers._views.values():
            view.looked_at = float("-inf")


async def changes(platform: Platform, breaker: Breaker = BANK) -> tuple[str, int]:
    seen = await platform.ledger.circuits.read(breaker.name)
    return (seen.circuit.state, seen.circuit.changes)


def figure(policies: Policies, name: str, **labels: str) -> float | None:
    return policies._breakers._metrics.registry.get_sample_value(name, {"breaker": BANK.name, **labels})


@TWICE
async def test_after_so_many_failures_calls_are_refused_everywhere_until_the_pause_is_over(others):
    here, there = others
    assert await call(there) == "paid"

    await break_it(here)
    forget(there)
    near, far = await refused(here), await refused(there)

    for error in (near, far):
        assert timedelta(seconds=20) < error.retry_after <= BANK.pause
        assert "the breaker bank is open (last, ConnectionError: no route)" in str(error)
    for policies, failures in ((here, 3), (there, None)):
        assert figure(policies, "carillon_breaker_state", state="open") == 1
        assert figure(policies, "carillon_breaker_state", state="closed") == 0
        assert figure(policies, "carillon_breaker_calls_total", outcome="refused") == 1
        assert figure(policies, "carillon_breaker_calls_total", outcome="failed") == failures


@TWICE
async def test_failures_of_all_processes_are_counted_together(others, platform):
    for policies in (*others, others[0]):
        with pytest.raises(ConnectionError):
            await call(policies, ConnectionError("no route"))

    assert await changes(platform) == ("open", 1)


@TWICE
async def test_a_breaker_that_is_closed_asks_the_ledger_once_for_many_calls(others, platform, monkeypatch):
    looks, read = [], platform.ledger.circuits.read

    async def looked(name):
        looks.append(name)
        return await read(name)

    monkeypatch.setattr(platform.ledger.circuits, "read", looked)
    monkeypatch.setattr("carillon.policies.breakers.LOOK_SECONDS", 60.0)
    for _ in range(1000):
        await call(others[0])

    assert looks == ["bank"]


@TWICE
async def test_of_many_calls_in_two_processes_exactly_one_is_the_probe(others, platform):
    here, there = others
    await break_it(here)
    await refused(there)
    await let_pauses_end(platform)
    for policies in others:
        # All know that it is time, so that all ask for it.
        await policies.refresh()
    gate, passed = asyncio.Event(), []

    async def try_it(policies: Policies) -> None:
        async with policies.breaker(BANK):
            passed.append(policies)
            await gate.wait()

    calls = [asyncio.create_task(try_it(policies)) for policies in (here, there) * 10]

    async def all_but_one_refused() -> bool:
        return sum(task.done() for task in calls) == 19

    await eventually(all_but_one_refused)
    gate.set()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    forget(here, there)

    assert len(passed) == 1
    refusals = [end for end in ends if isinstance(end, CircuitOpenError)]
    assert len(refusals) == 19
    assert all(error.retry_after <= BANK.timeout + timedelta(seconds=5) for error in refusals)
    assert await changes(platform) == ("closed", 3)
    assert [await call(policies) for policies in others] == ["paid", "paid"]


async def unheard(*_: object) -> Callable[[], Awaitable[None]]:
    async def nothing() -> None: ...

    return nothing


@TWICE
async def test_of_many_changes_at_once_none_is_lost_and_one_begins_the_probe(platform):
    change, much = platform.ledger.circuits.change, Breaker("bank", failures=500, pause=timedelta(microseconds=1))
    await asyncio.gather(*(change("bank", failed(much, 1, "no route"), unheard) for _ in range(60)))
    seen = await platform.ledger.circuits.read("bank")
    await change("bank", failed(much, 500, "no route"), unheard)
    tokens = [new_id() for _ in range(60)]
    after = await asyncio.gather(*(change("bank", probing(much, token), unheard) for token in tokens))

    assert len(seen.circuit.failed_at) == 60
    assert sum(one.circuit.probe == token for one, token in zip(after, tokens, strict=True)) == 1


@TWICE
async def test_a_probe_that_dies_makes_way_for_the_next_and_its_late_end_changes_nothing(others, platform):
    here, there = others
    await break_it(here)
    await let_pauses_end(platform)
    forget(here)
    gate = asyncio.Event()

    async def hang() -> None:
        async with here.breaker(BANK):
            await gate.wait()
            raise ConnectionError("too late")

    probe = asyncio.create_task(hang())
    await eventually(lambda: is_half_open(platform))
    forget(there)
    meanwhile = await refused(there)
    await let_probes_die(platform)
    forget(there)
    next_ = await call(there)
    gate.set()
    with pytest.raises(ConnectionError):
        await probe

    assert "another call is trying it" in str(meanwhile)
    assert next_ == "paid"
    assert await changes(platform) == ("closed", 3)


async def is_half_open(platform: Platform) -> bool:
    return (await changes(platform))[0] == "half_open"


@TWICE
async def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest(others, platform):
    policies = others[0]
    await break_it(policies)
    pauses = []
    for _ in range(3):
        await let_pauses_end(platform)
        forget(policies)
        with pytest.raises(ConnectionError):
            await call(policies, ConnectionError("still"))
        pauses.append(round((await refused(policies)).retry_after.total_seconds(), -1))

    assert pauses == [60, 100, 100]


@TWICE
@pytest.mark.parametrize("error", [PermanentError("declined"), Snooze(5), Cancel("unwanted"), asyncio.CancelledError()])
async def test_what_says_nothing_of_the_dependency_does_not_count(others, platform, error):
    for _ in range(2 * BANK.failures):
        with pytest.raises(type(error)):
            await call(others[0], error)

    assert await platform.ledger.circuits.read("bank") is None


@TWICE
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (PermanentError("declined"), "closed"),
        (Snooze(5), "half_open"),
        (Cancel("unwanted"), "half_open"),
        (asyncio.CancelledError(), "half_open"),
    ],
)
async def test_a_probe_that_gets_an_answer_closes_and_one_that_gets_none_lets_the_next_try(
    others, platform, error, state
):
    here, there = others
    await break_it(here)
    await let_pauses_end(platform)
    forget(here)
    with pytest.raises(type(error)):
        await call(here, error)
    before, _ = await changes(platform)
    forget(there)

    assert before == state
    assert await call(there) == "paid"


@TWICE
async def test_which_errors_count_can_be_said(others, platform):
    choosy = Breaker("choosy", failures=1, counts=(OSError,), ignores=(FileNotFoundError,))
    for error in (ValueError("odd"), FileNotFoundError("gone")):
        with pytest.raises(type(error)):
            await call(others[0], error, choosy)
    before = await platform.ledger.circuits.read("choosy")
    with pytest.raises(ConnectionError):
        await call(others[0], ConnectionError("no route"), choosy)

    assert before is None
    assert await changes(platform, choosy) == ("open", 1)


@TWICE
async def test_many_that_fail_in_one_moment_open_it_once(others, platform):
    ends = await asyncio.gather(
        *(call(policies, ConnectionError("no route")) for policies in others * 25), return_exceptions=True
    )

    assert all(isinstance(end, ConnectionError) for end in ends)
    assert await changes(platform) == ("open", 1)


@TWICE
async def test_without_the_ledger_calls_pass_as_it_was_known_last_and_fail_with_their_own_error(
    others, platform, monkeypatch
):
    here, there = others
    await break_it(there)

    async def away(*_: object) -> None:
        raise ConnectionError("the ledger is away")

    for part in ("read", "change"):
        monkeypatch.setattr(platform.ledger.circuits, part, away)
    monkeypatch.setattr(there._breakers._platform.ledger.circuits, "read", away)
    forget(there)
    unknown = await call(here)
    with pytest.raises(ValueError, match="its own"):
        await call(here, ValueError("its own"))

    assert unknown == "paid"
    assert (await refused(there)).retry_after > timedelta(seconds=20)


@TWICE
async def test_figures_of_a_breaker_that_nobody_calls_here_any_more_follow_it(others, platform):
    here, there = others
    await break_it(here)
    await let_pauses_end(platform)
    forget(there)
    await call(there)
    before = figure(here, "carillon_breaker_state", state="open")
    await here.refresh()

    assert before == 1
    assert figure(here, "carillon_breaker_state", state="open") == 0
    assert figure(here, "carillon_breaker_state", state="closed") == 1


class Bank:
    """What the bank does, and who came."""

    def __init__(self) -> None:
        self.is_down = True
        self.calls = 0


def shop_service(settings, bank: Bank) -> Service:
    tasks = shop_tasks(Retry(attempts=4, base=timedelta(milliseconds=1), cap=timedelta(milliseconds=2)))

    @asynccontextmanager
    async def resources(_):
        yield {Bank: bank}

    return Service(name="shop", settings=settings, tasks=tasks, resources=resources)


def shop_tasks(retry: Retry) -> Tasks:
    tasks = Tasks("shop")

    @tasks.task(retry=retry)
    async def pay(order: str, *, policies: Policies, bank: Bank) -> str:
        """Pay. Safe to run twice: it only asks."""
        async with policies.breaker(BANK):
            bank.calls += 1
            if bank.is_down:
                raise ConnectionError("no route")
            return order

    @tasks.task(retry=Retry(attempts=1))
    async def wait_long(*, policies: Policies) -> None:
        """Wait for longer than the breaker does. Safe to run twice: it only waits."""
        async with policies.breaker(BANK):
            await asyncio.sleep(200)

    return tasks


async def test_runs_of_two_workers_leave_a_dependency_alone_together_and_say_so(platform):
    bank = Bank()
    async with AsyncExitStack() as open_:
        for _ in range(2):
            await open_.enter_async_context(running(shop_service(platform.settings, bank), platform))
        runs = [
            NewRun(id=new_id(), domain="shop", task="shop.pay", args=f'{{"order": "o{number}"}}') for number in range(4)
        ]
        await platform.submit_many(runs)

        async def all_wait() -> Any:
            rows = [await platform.history.run(run.id) for run in runs]
            refusals = [row for row in rows if (row["error"] or {}).get("type") == "CircuitOpenError"]
            return rows if len(refusals) == len(runs) else None

        rows = await eventually(all_wait)
        said = await said_of_type(platform, BreakerChanged.type)

    assert {row["state"] for row in rows} == {"retrying"}
    assert all(row["run_at"] > datetime.now(UTC) + timedelta(seconds=15) for row in rows)
    # What had begun when it opened is let end.
    assert 3 <= bank.calls <= 8
    assert await changes(platform) == ("open", 1)
    assert [(data["breaker"], data["state"], data["change"]) for data in said] == [("bank", "open", 1)]
    assert BreakerChanged in shop_service(platform.settings, bank)._says


async def test_a_rehearsed_run_is_tried_again_when_its_breaker_lets_it():
    tasks, bank = shop_tasks(Retry(attempts=5, base=timedelta(seconds=1), cap=timedelta(seconds=1))), Bank()
    pay = tasks.declared["shop.pay"]

    async with Rehearsal(tasks, resources={Bank: bank}, at=NOON) as rehearsal:
        task = await pay.kiq("o1")
        await rehearsal.advance(timedelta(seconds=10))
        waiting, calls = rehearsal.run(task), bank.calls
        bank.is_down = False
        await rehearsal.advance(timedelta(seconds=30))
        ended = rehearsal.run(task)
        told = [row["data"] for row in rehearsal.platform.store.events.values()]

    assert (waiting.state, waiting.error["type"], calls) == ("retrying", "CircuitOpenError", 3)
    assert (ended.state, ended.result) == ("completed", "o1")
    assert [(each["breaker"], each["state"], each["change"]) for each in told] == [
        ("bank", "open", 1), ("bank", "half_open", 2), ("bank", "closed", 3)
    ]  # fmt: skip
    assert told[0]["reason"] == "ConnectionError: no route"


async def test_a_call_that_takes_too_long_counts():
    tasks = shop_tasks(Retry(attempts=1))

    async with Rehearsal(tasks, resources={Bank: Bank()}) as rehearsal:
        runs = [await tasks.declared["shop.wait_long"].kiq() for _ in range(3)]
        await rehearsal.advance(BANK.timeout)
        errors = {rehearsal.run(run).error["type"] for run in runs}
        opened = await changes(rehearsal.platform)

    assert errors == {"TimeoutError"}
    assert opened == ("open", 1)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=20))
def test_it_opens_with_the_failure_that_is_one_too_many_in_a_window(gaps):
    now, circuit, moments = NOON, Circuit(), []
    for gap in gaps:
        now += timedelta(seconds=gap)
        moments.append(now)
        circuit = failed(BANK, 1, "no route")(circuit, now)
        recent = [moment for moment in moments if moment > now - BANK.within]

        assert (circuit.state is CircuitState.OPEN) == (len(recent) >= BANK.failures)
        assert len(circuit.failed_at) <= BANK.failures
        if circuit.state is CircuitState.OPEN:
            return


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Bank"}, "no breaker can be named 'Bank'"),
        ({"failures": 0}, "failures=0; it is a whole number from 1 to 1,000"),
        ({"failures": True}, "failures=True"),
        ({"within": timedelta(0)}, "within=datetime.timedelta(0); it must be a timedelta, more than nothing"),
        ({"timeout": 5}, "timeout=5; it must be a timedelta"),
        ({"longest_pause": timedelta(seconds=1)}, "it must be at least its pause, 0:00:30"),
        ({"counts": OSError}, "it must be a tuple of exception classes"),
        ({"ignores": (KeyboardInterrupt,)}, "it must be a tuple of exception classes"),
    ],
)
def test_a_breaker_that_could_not_be_kept_is_refused(options, words):
    with pytest.raises(ConfigurationError) as caught:
        Breaker(**{"name": "bank", **options})

    assert words in str(caught.value)


def test_a_plain_function_cannot_have_policies():
    tasks = Tasks("shop")

    @tasks.task()
    def pay(order: str, *, policies: Policies) -> str:
        """Pay. Safe to run twice: it only returns."""
        return order

    with pytest.raises(ConfigurationError, match=r"shop.pay needs `Policies`, which are for coroutines; write `async"):
        tasks.check({})
