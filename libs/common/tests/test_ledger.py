"""The ledger's hot path, in PostgreSQL and in memory: fences, said events, hand-backs, rescues and expiry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from behind import answering, attempts, events, let_it_expire, row, silence
from shop import OrderPlaced

from carillon.cloudevents import Envelope
from carillon.errors import IdempotencyConflictError, PlatformUnavailableError
from carillon.ids import new_id
from carillon.ledger.audit import Actor
from carillon.ledger.catalogue import Hearer
from carillon.ledger.ledger import Ledger
from carillon.ledger.records import Finish, NewRun, Priority, State
from carillon.platform import answer
from carillon.testing import eventually
from carillon.testing.memory import MemoryLedger, Store


@pytest.fixture
def closed(request: pytest.FixtureRequest, ledger_kind: str) -> Ledger:
    if ledger_kind == "memory":
        return MemoryLedger(Store(), name="test")
    return Ledger(request.getfixturevalue("ledger_url"), name="test", carries_events=True)


@pytest.fixture
async def ledger(closed: Ledger) -> AsyncIterator[Ledger]:
    async with closed as opened:
        yield opened


@pytest.fixture
def domain() -> str:
    return f"d{new_id().hex}"


@pytest.fixture
async def worker(ledger: Ledger, domain: str) -> UUID:
    return await enrolled(ledger, domain)


async def enrolled(ledger: Ledger, domain: str) -> UUID:
    worker = new_id()
    await ledger.enrol(worker, domain, "here", 1, "0", 1)
    return worker


async def submitted(ledger: Ledger, domain: str, *, given: bool = False, **options: Any) -> UUID:
    run = NewRun(**{"id": new_id(), "domain": domain, "task": f"{domain}.work", "args": "{}"} | options)
    return (await ledger.submit((run, given))).id


async def started(ledger: Ledger, domain: str, worker: UUID, **options: Any) -> UUID:
    run = await submitted(ledger, domain, **options)
    assert await ledger.start((run, 1, worker))
    return run


def done(run: UUID, attempt: int = 1, **options: Any) -> Finish:
    return Finish(**{"id": run, "attempt": attempt, "state": State.COMPLETED, "outcome": "completed"} | options)


def retried(run: UUID, attempt: int = 1, **options: Any) -> Finish:
    due = datetime.now(UTC) + timedelta(hours=1)
    return done(run, attempt, **{"state": State.RETRYING, "outcome": "retried", "run_at": due} | options)


async def outcomes(ledger: Ledger, run: UUID) -> list[tuple[int, str]]:
    """Those of the attempts that did not end the run."""
    return [(attempt["attempt"], attempt["outcome"]) for attempt in await attempts(ledger, run)]


async def applied(ledger: Ledger, worker: UUID, end: Finish) -> bool:
    return (await ledger.finish((worker, end))).applied


async def test_submitting_one_id_twice_makes_one_run_even_within_a_batch(ledger, domain):
    run = NewRun(id=new_id(), domain=domain, task="d.work", args='{"a": 1, "b": 2}')
    reordered = NewRun(id=run.id, domain=domain, task="d.work", args='{"b": 2, "a": 1}')

    together = await asyncio.gather(*(ledger.submit((run, False)) for _ in range(5)))
    later = await ledger.submit((reordered, False))

    assert sorted(submit.created for submit in together) == [False] * 4 + [True]
    assert (later.id, later.created) == (run.id, False)


@pytest.mark.parametrize("other", [{"args": '{"a": 2}'}, {"task": "d.other"}])
async def test_one_id_for_other_work_is_a_conflict_that_names_the_key(ledger, domain, other):
    same = {"id": new_id(), "idempotency_key": "order-7", "args": '{"a": 1}'}
    await submitted(ledger, domain, **same)

    with pytest.raises(IdempotencyConflictError, match=r"'order-7' was used before .* use a new key"):
        await submitted(ledger, domain, **same | other)


@pytest.mark.parametrize(
    "bad", [{"args": '{"a": "\\u0000"}'}, {"task": "nul\x00"}, {"task": "\ud800"}, {"args": "{"}, {"priority": 1 << 40}]
)
async def test_a_run_that_postgresql_cannot_keep_is_refused_alone(ledger, domain, bad):
    results = await asyncio.gather(
        submitted(ledger, domain), submitted(ledger, domain, **bad), submitted(ledger, domain), return_exceptions=True
    )

    assert [type(result) for result in results if not isinstance(result, UUID)] == [type(results[1])]
    assert isinstance(results[1], asyncpg.DataError)


async def test_only_the_expected_attempt_starts_and_only_once(ledger, domain, worker):
    run = await submitted(ledger, domain)

    together = await asyncio.gather(*(ledger.start((run, 1, worker)) for _ in range(3)))
    early, late = await ledger.start((run, 2, worker)), await ledger.start((run, 0, worker))
    other_worker = await ledger.start((run, 1, new_id()))

    assert together == [True, False, False]
    assert (early, late, other_worker) == (False, False, False)


async def test_a_delivery_of_the_last_attempt_does_not_start_beside_that_of_this_one(ledger, domain, worker):
    run = await submitted(ledger, domain)

    started = await asyncio.gather(*(ledger.start((run, attempt, worker)) for attempt in (0, 1, 0)))

    assert started == [False, True, False]


async def test_a_worker_whose_start_was_not_answered_may_ask_again(ledger, domain, worker):
    run = await started(ledger, domain, worker)

    assert await ledger.start((run, 1, worker))


async def test_an_expired_run_does_not_start(ledger, domain, worker):
    run = await submitted(ledger, domain, expires_at=datetime.now(UTC) - timedelta(seconds=1))

    assert not await ledger.start((run, 1, worker))
    assert await ledger.claim(domain, 5, worker) == []


async def test_an_end_applies_once_and_only_from_the_worker_that_runs_it(ledger, domain, worker):
    run = await started(ledger, domain, worker)

    stranger = await applied(ledger, new_id(), done(run, result='"stranger"'))
    stale = await applied(ledger, worker, done(run, attempt=2, result='"stale"'))
    first = await applied(ledger, worker, done(run, result='"first"'))
    second = await applied(ledger, worker, done(run, result='"second"'))

    assert (stranger, stale, first, second) == (False, False, True, False)
    assert ((await row(ledger, run))["result"], await outcomes(ledger, run)) == ("first", [])


async def test_a_retry_opens_the_next_attempt_and_closes_the_last(ledger, domain, worker):
    run = await started(ledger, domain, worker)

    await applied(ledger, worker, retried(run, error='{"type": "E", "message": "m"}', uncounted=1))

    found = await row(ledger, run)
    assert (found["state"], found["attempt"], found["uncounted"], found["finished_at"]) == ("retrying", 2, 1, None)
    assert found["dispatched_at"] is None
    assert not await ledger.start((run, 1, worker))
    assert await ledger.start((run, 2, worker))


async def test_a_retry_of_what_somebody_wants_cancelled_ends_it(ledger, domain, worker):
    run = await started(ledger, domain, worker)
    await ledger.steering.cancel(run, Actor("ada", "a test"), "not needed")

    assert await applied(ledger, worker, retried(run, error='{"type": "E", "message": "m"}'))
    found = await row(ledger, run)
    assert (found["state"], found["error"]["message"]) == ("cancelled", "cancelled by ada: not needed")
    assert await outcomes(ledger, run) == []


async def test_one_batch_holds_ends_of_every_kind(ledger, domain, worker):
    runs = [await started(ledger, domain, worker) for _ in range(4)]
    said = Envelope.of(OrderPlaced(order="o"), source="/shop", id=str(runs[3]))
    ends = [
        done(runs[0], result="1"),
        retried(runs[1]),
        done(runs[2], state=State.FAILED, outcome="failed", error='{"type": "E"}'),
        done(runs[3], events=[said.new_event(actor="t", run_id=runs[3])]),
    ]

    assert await asyncio.gather(*(applied(ledger, worker, end) for end in ends)) == [True] * 4
    states = [(await row(ledger, run))["state"] for run in runs]
    assert states == ["completed", "retrying", "failed", "completed"]
    assert len(await events(ledger, said.key)) == 1


async def test_what_a_run_says_is_recorded_with_its_end_and_answered_once(ledger, domain, worker):
    run = await started(ledger, domain, worker)
    envelope = Envelope.of(OrderPlaced(order="o"), source="/shop", id=f"{run}/0")
    answers = [answer(envelope, Hearer(f"{domain}.{name}", domain)) for name in ("pack", "thank")]
    end = done(run, events=[envelope.new_event(actor="t", run_id=run)], answers=answers)

    done_twice = [await applied(ledger, worker, end) for _ in range(2)]
    await ledger.say([envelope.new_event(actor="other")], answers)

    assert done_twice == [True, False]
    assert [event["run_id"] for event in await events(ledger, envelope.key)] == [run]
    assert await answering(ledger, envelope.key) == {each.id for each in answers}


async def test_an_end_that_is_fenced_off_says_nothing(ledger, domain, worker):
    run = await started(ledger, domain, worker)
    envelope = Envelope.of(OrderPlaced(order="o"), source="/shop", id=f"{run}/0")
    said = {
        "events": [envelope.new_event(actor="t", run_id=run)],
        "answers": [answer(envelope, Hearer("d.pack", domain))],
    }

    await applied(ledger, new_id(), done(run, **said))

    assert await events(ledger, envelope.key) == []
    assert await answering(ledger, envelope.key) == set()


async def test_an_event_that_was_said_before_is_not_new(ledger, domain):
    envelope = Envelope.of(OrderPlaced(order="o"), source="/shop", id=domain)

    first = await ledger.say([envelope.new_event(actor="t")], [answer(envelope, Hearer("d.pack", domain))])
    again = await ledger.say([envelope.new_event(actor="t")], [answer(envelope, Hearer("d.thank", domain))])

    assert (first, again) == ({envelope.key}, set())
    assert await answering(ledger, envelope.key) == {answer(envelope, Hearer("d.pack", domain)).id}


async def test_an_end_that_postgresql_cannot_keep_is_refused_alone_and_the_run_can_still_end(ledger, domain, worker):
    runs = [await started(ledger, domain, worker) for _ in range(3)]
    ends = [done(runs[0]), done(runs[1], result='"\\u0000"'), done(runs[2])]

    results = await asyncio.gather(*(applied(ledger, worker, end) for end in ends), return_exceptions=True)

    assert (results[0], results[2]) == (True, True)
    assert isinstance(results[1], asyncpg.DataError)
    assert await applied(ledger, worker, done(runs[1]))


async def test_the_most_urgent_and_the_longest_due_is_claimed_first(ledger, domain, worker):
    now = datetime.now(UTC)
    late, later, urgent = [
        await submitted(ledger, domain, run_at=now - timedelta(minutes=minutes), priority=priority)
        for minutes, priority in [(9, 1), (3, 1), (1, 3)]
    ]
    await submitted(ledger, domain, run_at=now + timedelta(hours=1), priority=3)
    await submitted(ledger, f"{domain}x", run_at=now - timedelta(hours=1), priority=3)

    claimed = [(await ledger.claim(domain, 1, worker))[0].id for _ in range(3)]

    assert claimed == [urgent, late, later]
    assert await ledger.claim(domain, 5, worker) == []


async def test_two_workers_that_claim_at_once_get_different_runs(ledger, domain, worker):
    runs = {await submitted(ledger, domain) for _ in range(40)}

    claims = await asyncio.gather(*(ledger.claim(domain, 10, new_id()) for _ in range(6)))

    taken = [delivery.id for claim in claims for delivery in claim]
    assert len(taken) == len(set(taken)) == 40
    assert set(taken) == runs


@pytest.mark.real("dispatching")
async def test_due_runs_are_taken_once_and_overdue_ones_again(ledger, domain):
    run = await submitted(ledger, domain)
    before = datetime.now(UTC) + timedelta(minutes=1)

    taken = [d.id for d in await ledger.take_due(domain, Priority.NORMAL, 10)]
    again = await ledger.take_due(domain, Priority.NORMAL, 10)
    not_yet = await ledger.take_overdue(domain, Priority.NORMAL, 10, datetime.now(UTC) - timedelta(minutes=1))
    overdue = [d.id for d in await ledger.take_overdue(domain, Priority.NORMAL, 10, before)]

    assert (taken, again, not_yet, overdue) == ([run], [], [], [run])


@pytest.mark.real("dispatching")
async def test_a_run_that_the_transport_refused_is_due_again(ledger, domain, worker):
    refused, running = await submitted(ledger, domain, given=True), await started(ledger, domain, worker, given=True)

    await ledger.mark_undispatched([refused, running])

    assert [d.id for d in await ledger.take_due(domain, Priority.NORMAL, 10)] == [refused]
    assert (await row(ledger, running))["dispatched_at"] is not None


async def test_the_next_due_moment_is_that_of_the_first_run_that_waits_here(ledger, domain):
    nothing = await ledger.next_due(domain)
    await submitted(ledger, domain, run_at=datetime.now(UTC) + timedelta(hours=1))
    in_an_hour = await ledger.next_due(domain)
    await submitted(ledger, domain, given=True)
    given = await ledger.next_due(domain)
    await submitted(ledger, domain, run_at=datetime.now(UTC) - timedelta(seconds=5))
    overdue = await ledger.next_due(domain)

    assert nothing is None
    assert 3590 < in_an_hour <= 3600
    assert 3590 < given <= 3600
    assert -7 < overdue <= -5


async def test_a_stopped_worker_hands_back_what_runs_and_the_attempt_is_not_counted(ledger, domain, worker):
    run, ended = await started(ledger, domain, worker), await started(ledger, domain, worker)
    elsewhere = await started(ledger, domain, await enrolled(ledger, domain))
    await applied(ledger, worker, done(ended))

    handed_back = (await ledger.hand_back(worker)).moved

    found = await row(ledger, run)
    assert handed_back == 1
    assert (found["state"], found["attempt"], found["uncounted"], found["lost"]) == ("retrying", 2, 1, 0)
    assert await outcomes(ledger, run) == [(1, "handed_back")]
    assert (await row(ledger, elsewhere))["state"] == "running"
    assert not await applied(ledger, worker, done(run))


async def test_what_a_worker_has_in_hand_or_just_took_is_not_handed_back(ledger, domain, worker):
    in_hand, stray = await started(ledger, domain, worker), await started(ledger, domain, worker)

    young = await ledger.hand_back(worker, but=[in_hand], age=timedelta(minutes=1))
    old = await ledger.hand_back(worker, but=[in_hand])

    assert (young.moved, old.moved) == (0, 1)
    assert [(await row(ledger, run))["state"] for run in (in_hand, stray)] == ["running", "retrying"]


async def test_only_runs_of_silent_or_retired_workers_are_rescued(ledger, domain, worker):
    runs = []
    for fate in ("alive", "silent", "retired"):
        one = await enrolled(ledger, domain)
        runs.append(await started(ledger, domain, one))
        if fate == "silent":
            await silence(ledger, one)
        if fate == "retired":
            await ledger.retire(one)

    rescued = (await ledger.rescue(domain, timedelta(seconds=15), suspicious=3, most=10)).moved

    assert rescued == 2
    assert [(await row(ledger, run))["state"] for run in runs] == ["running", "retrying", "retrying"]
    assert await outcomes(ledger, runs[1]) == [(1, "lost")]
    assert (await ledger.rescue(domain, timedelta(seconds=15), suspicious=3, most=10)).moved == 0


async def died_with(ledger: Ledger, domain: str, *runs: UUID) -> None:
    """A worker begins these runs, and is never heard of again."""
    worker = await enrolled(ledger, domain)
    for run in runs:
        assert await ledger.start((run, (await row(ledger, run))["attempt"], worker))


async def rescue(ledger: Ledger, domain: str) -> None:
    """All workers have been silent for longer than nothing."""
    await ledger.rescue(domain, timedelta(0), suspicious=3, most=5)


async def fates(ledger: Ledger, *runs: UUID) -> list[tuple[str, int]]:
    """State and lost workers of each."""
    return [(found["state"], found["lost"]) for run in runs if (found := await row(ledger, run))]


async def test_a_run_that_loses_worker_after_worker_fails_and_says_so(ledger, domain):
    run = await submitted(ledger, domain)

    for _ in range(3):
        await died_with(ledger, domain, run)
        await rescue(ledger, domain)

    found = await row(ledger, run)
    assert (found["state"], found["attempt"], found["lost"]) == ("failed", 3, 3)
    assert found["error"]["message"] == "the worker died 3 times while it ran this"
    assert found["finished_at"] is not None
    assert await outcomes(ledger, run) == [(1, "lost"), (2, "lost")]


async def test_what_ran_beside_a_run_that_kills_workers_does_not_fail_with_it(ledger, domain):
    killer, neighbour, latecomer = [await submitted(ledger, domain) for _ in range(3)]

    for _ in range(3):
        await died_with(ledger, domain, killer, neighbour)
        await rescue(ledger, domain)
    both_stood_there = await fates(ledger, killer, neighbour)
    await died_with(ledger, domain, killer, latecomer)
    await rescue(ledger, domain)

    assert both_stood_there == [("retrying", 3), ("retrying", 3)]
    assert await fates(ledger, killer, neighbour, latecomer) == [("failed", 4), ("retrying", 3), ("retrying", 1)]


async def test_a_run_whose_workers_die_as_often_without_it_was_unlucky(ledger, domain):
    unlucky = await submitted(ledger, domain)
    for _ in range(2):
        await died_with(ledger, domain, unlucky)
        await rescue(ledger, domain)
    for _ in range(3):
        await died_with(ledger, domain)

    await died_with(ledger, domain, unlucky)
    await rescue(ledger, domain)
    third = await fates(ledger, unlucky)
    await died_with(ledger, domain, unlucky)
    await rescue(ledger, domain)

    assert third == [("retrying", 3)]
    # Meanwhile none died without it.
    assert await fates(ledger, unlucky) == [("failed", 4)]


async def test_workers_that_ended_or_died_before_a_run_began_speak_for_nobody(ledger, domain):
    for _ in range(3):
        await died_with(ledger, domain)
    killer = await submitted(ledger, domain)

    for _ in range(3):
        await died_with(ledger, domain, killer)
        await rescue(ledger, domain)
        await ledger.retire(await enrolled(ledger, domain))
        await ledger.retire(await enrolled(ledger, domain))

    assert await fates(ledger, killer) == [("failed", 3)]


async def test_a_run_that_lost_as_many_workers_as_any_may_fails_whatever_died_beside(ledger, domain):
    one, other = [await submitted(ledger, domain) for _ in range(2)]

    for _ in range(5):
        await died_with(ledger, domain, one, other)
        await rescue(ledger, domain)

    assert await fates(ledger, one, other) == [("failed", 5), ("failed", 5)]


async def test_a_rescued_run_counts_its_attempts_as_before(ledger, domain, worker):
    run = await started(ledger, domain, worker)
    await ledger.retire(worker)
    await ledger.rescue(domain, timedelta(seconds=15), suspicious=3, most=10)

    # The rescued are spread over two seconds.
    (delivery,) = await eventually(lambda: ledger.claim(domain, 1, new_id()))

    assert (delivery.id, delivery.attempt, delivery.uncounted) == (run, 2, 1)


async def test_a_retired_worker_has_no_heartbeat(ledger, domain, worker):
    alive = await ledger.heartbeat(worker, 3)
    await ledger.retire(worker)

    assert (alive, await ledger.heartbeat(worker, 3)) == (True, False)


async def test_what_was_not_started_in_time_is_cancelled_and_what_runs_is_not(ledger, domain, worker):
    past, soon = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=1)
    late, in_time = await submitted(ledger, domain, expires_at=past), await submitted(ledger, domain, expires_at=soon)
    running = await started(ledger, domain, worker, expires_at=soon)
    await let_it_expire(ledger, running, past)

    expired = (await ledger.expire(domain)).moved

    found = await row(ledger, late)
    assert expired == 1
    assert (found["state"], found["error"]["type"]) == ("cancelled", "Expired")
    assert found["finished_at"] is not None
    assert [(await row(ledger, run))["state"] for run in (in_time, running)] == ["queued", "running"]


async def test_a_server_that_does_not_answer_is_named_with_what_to_check():
    ledger = Ledger("postgresql://postgres@127.0.0.1:1/carillon", name="test", carries_events=True)

    with pytest.raises(PlatformUnavailableError, match=r"PostgreSQL cannot be reached .* check DATABASE_URL"):
        async with ledger:
            pass


async def test_a_ledger_that_is_not_open_says_how_to_open_it():
    ledger = Ledger("postgresql://127.0.0.1/carillon", name="test", carries_events=True)

    with pytest.raises(RuntimeError, match="use it as `async with"):
        await ledger.expire("shop")
