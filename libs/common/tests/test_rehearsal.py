"""Rehearsing a domain: its worker in memory, by a clock that only the test moves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import killable
import pytest
import structlog
from taskiq.exceptions import SendTaskError

from carillon import Retry, Run, Tasks, clock
from carillon.contracts import Event
from carillon.errors import (
    IdempotencyConflictError,
    InvalidArgumentsError,
    NotConnectedError,
    PermanentError,
    Snooze,
    TransientError,
)
from carillon.ids import new_id
from carillon.ledger.audit import Actor
from carillon.ledger.records import After, NewRun, Unique
from carillon.testing import Rehearsal, eventually
from carillon.testing.held import HeldClock
from carillon.testing.memory import NotInMemoryError

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


class OrderPlaced(Event):
    """Said by a customer."""

    type: ClassVar[str] = "post.order_placed.v1"

    order: str


class ReminderSent(Event):
    """Said by the post."""

    type: ClassVar[str] = "post.reminder_sent.v1"

    order: str
    at: datetime


class ReminderFailed(Event):
    """Said by the post."""

    type: ClassVar[str] = "post.reminder_failed.v1"

    order: str
    reason: str


class Desk:
    """What the tasks did, and what holds them."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.at: list[datetime] = []
        self.gate = asyncio.Event()
        self.returns = threading.Event()
        self.down = 0


tasks = Tasks("post")


def not_sent(arguments: Mapping[str, Any], error: BaseException) -> ReminderFailed:
    return ReminderFailed(order=arguments["order"], reason=str(error))


@tasks.task(retry=Retry(attempts=3, base=MINUTE, cap=10 * MINUTE), on_failure=not_sent)
async def remind(order: str, *, desk: Desk, run: Run) -> ReminderSent:
    """Remind. Safe to run twice: it counts."""
    desk.at.append(clock.now())
    structlog.get_logger().info("reminding", order=order, password="geheim")
    if desk.down:
        desk.down -= 1
        raise TransientError("the post is closed")
    run.progress(1, stage="sent")
    return ReminderSent(order=order, at=clock.now())


@tasks.hears(OrderPlaced)
async def remind_later(event: OrderPlaced, *, desk: Desk, run: Run) -> None:
    """Submit a reminder for tomorrow. Safe to run twice: the key makes it one."""
    await remind.kicker().with_labels(delay=DAY.total_seconds(), idempotency_key=event.order).kiq(event.order)


@tasks.task(timeout=5 * MINUTE, grace=MINUTE, retry=Retry(attempts=1))
async def wait_at_the_gate(naps: int = 0, *, desk: Desk) -> str:
    """Wait. Safe to run twice: it counts."""
    desk.seen["entered"] += 1
    try:
        for _ in range(naps):
            await asyncio.sleep(60)
            desk.seen["naps"] += 1
        await desk.gate.wait()
    except asyncio.CancelledError:
        desk.seen["told"] += 1
        raise
    return "through"


@tasks.task(timeout=5 * MINUTE, grace=MINUTE, retry=Retry(attempts=1))
def block(*, desk: Desk, run: Run) -> str:
    """Block a thread. Safe to run twice: it counts."""
    desk.seen["entered"] += 1
    while not desk.returns.wait(0.005):
        run.check()
    return "returned"


@tasks.task(retry=Retry(attempts=2, base=MINUTE))
async def end(how: str) -> Any:
    """End in a given way. Safe to run twice: it only raises."""
    if how == "snooze":
        raise Snooze(MINUTE)
    if how == "fail":
        raise PermanentError("never")
    return {"how": how, "at": (1, 2)}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def rehearsed(desk: Desk, **options: Any) -> Rehearsal:
    return Rehearsal(tasks, resources={Desk: desk}, at=NEW_YEAR, **options)


def new_run(task: str, args: str = "{}", **options: Any) -> NewRun:
    return NewRun(id=new_id(), domain="post", task=f"post.{task}", args=args, **options)


async def test_a_task_runs_by_itself_and_its_result_is_what_json_makes_of_it(desk):
    async with rehearsed(desk) as rehearsal:
        task = await end.kiq("well")
        result = await task.wait_result(timeout=5, check_interval=0.01)
        run = rehearsal.run(task)

    assert result.return_value == {"how": "well", "at": [1, 2]}
    assert (run.state, run.result, [each.outcome for each in run.attempts]) == (
        "completed", {"how": "well", "at": [1, 2]}, ["completed"]
    )  # fmt: skip


async def test_a_delayed_run_starts_when_the_clock_gets_there_and_not_before(desk):
    async with rehearsed(desk) as rehearsal:
        await remind.kicker().with_labels(delay=DAY.total_seconds()).kiq("order-17")
        await rehearsal.advance(DAY - timedelta(microseconds=1))
        before = list(desk.at)
        await rehearsal.advance(timedelta(microseconds=1))
        said = rehearsal.said(ReminderSent)

    assert before == []
    assert said == [ReminderSent(order="order-17", at=NEW_YEAR + DAY)]


async def test_what_is_due_happens_in_order_and_each_at_its_own_moment(desk):
    delays = [3000, 0.003, 7, 86_000, 0.5]
    async with rehearsed(desk) as rehearsal:
        for delay in delays:
            await remind.kicker().with_labels(delay=delay).kiq(str(delay))
        await rehearsal.advance(DAY)

    assert desk.at == [NEW_YEAR + timedelta(seconds=delay) for delay in sorted(delays)]


async def test_retries_wait_for_the_clock_and_every_attempt_is_told(desk):
    desk.down = 2
    async with rehearsed(desk) as rehearsal:
        task = await remind.kiq("order-17")
        await rehearsal.settle()
        waiting = rehearsal.run(task)
        await rehearsal.advance(timedelta(minutes=3))
        run = rehearsal.run(task)

    assert (waiting.state, len(waiting.attempts)) == ("retrying", 1)
    assert NEW_YEAR < waiting.run_at <= NEW_YEAR + MINUTE
    assert [each.outcome for each in run.attempts] == ["retried", "retried", "completed"]
    assert run.attempts[0].error["message"] == "the post is closed"
    assert "reminding order=order-17 password=***" in run.attempts[0].log
    assert [each.started_at for each in run.attempts] == desk.at
    assert run.progress["stage"] == "sent"


async def test_a_run_that_fails_for_good_says_so(desk):
    desk.down = 3
    async with rehearsed(desk) as rehearsal:
        task = await remind.kiq("order-17")
        await rehearsal.advance(timedelta(hours=1))
        run, said, failed = rehearsal.run(task), rehearsal.said(ReminderSent), rehearsal.said(ReminderFailed)

    assert (run.state, run.error["type"]) == ("failed", "TransientError")
    assert (said, failed) == ([], [ReminderFailed(order="order-17", reason="the post is closed")])


async def test_an_event_is_answered_and_what_answers_it_submits_a_child(desk):
    async with rehearsed(desk) as rehearsal:
        heard = [await rehearsal.hear(OrderPlaced(order="o1"), id="1") for _ in range(2)]
        await rehearsal.settle()
        (answer,), (child,) = rehearsal.runs(remind_later), rehearsal.runs(remind)
        await rehearsal.advance(DAY)

    assert heard == [True, False]
    assert (child.parent_id, child.state, child.run_at) == (answer.id, "queued", NEW_YEAR + DAY)
    assert [said.order for said in rehearsal.said(ReminderSent)] == ["o1"]


async def test_code_that_waits_times_out_by_the_clock_and_sleeps_by_it(desk):
    async with rehearsed(desk) as rehearsal:
        task = await wait_at_the_gate.kiq(2)
        await rehearsal.settle()
        naps = [desk.seen["naps"]]
        for _ in range(2):
            await rehearsal.advance(MINUTE)
            naps.append(desk.seen["naps"])
        still = rehearsal.run(task).state
        await rehearsal.advance(3 * MINUTE)
        run = rehearsal.run(task)

    assert (naps, still) == ([0, 1, 2], "running")
    assert (run.state, run.error["type"], desk.seen["told"]) == ("failed", "TimeoutError", 1)
    assert run.attempts[0].finished_at == NEW_YEAR + 5 * MINUTE


async def test_the_test_itself_sleeps_by_the_real_clock(desk):
    async with rehearsed(desk):
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await asyncio.Event().wait()

    assert 0.02 <= time.monotonic() - began < 2


async def test_a_deadline_ends_a_run_and_is_passed_down(desk):
    async with rehearsed(desk) as rehearsal:
        running = await wait_at_the_gate.kicker().with_labels(deadline=90).kiq()
        late = await remind.options(after=After.of(running), deadline=MINUTE).kiq("late")
        await rehearsal.advance(2 * MINUTE)
        ends = [rehearsal.run(running).error["type"], rehearsal.run(late).error["type"]]

    assert ends == ["DeadlineExceeded", "Expired"]
    assert rehearsal.run(late).attempts == []


async def test_a_run_that_executes_is_cancelled_and_its_code_is_told(desk):
    async with rehearsed(desk) as rehearsal:
        task, other = await wait_at_the_gate.kiq(), await remind.kicker().with_labels(delay=60).kiq("later")
        await rehearsal.settle()
        for each in (task, other):
            await rehearsal.cancel(each, "not needed")
        await rehearsal.settle()

    assert [rehearsal.run(each).state for each in (task, other)] == ["cancelled", "cancelled"]
    assert rehearsal.run(task).error["message"] == "cancelled by rehearsal: not needed"
    assert (desk.seen["told"], desk.at) == (1, [])


async def test_a_function_in_a_thread_is_waited_for_and_can_be_timed_out(desk):
    async with rehearsed(desk, patience=0.1) as rehearsal:
        task = await block.kiq()
        with pytest.raises(AssertionError, match=r"came to rest within 0.1 s. Still in a thread .*: post.block"):
            await rehearsal.settle()
        await rehearsal.advance(5 * MINUTE, waits=False)
        timed_out = rehearsal.run(task)
        desk.returns.set()
        second = await block.kiq()
        await rehearsal.settle()

    assert (timed_out.state, timed_out.error["type"]) == ("failed", "TimeoutError")
    assert rehearsal.run(second).result == "returned"


async def test_a_function_in_a_process_is_waited_for_and_killed_by_the_clock(tmp_path):
    note, began = tmp_path / "note", time.monotonic()

    async def has_begun() -> bool:
        return note.exists() and bool(note.read_text())

    async with Rehearsal(killable.tasks, patience=30) as rehearsal:
        sum_ = await killable.add.kiq(40)
        await rehearsal.settle()
        stuck = await killable.spin.kiq(str(note))
        await eventually(has_begun)
        await rehearsal.advance(3 * killable.SOON, waits=False)
        await rehearsal.settle()
        ends = [rehearsal.run(each) for each in (sum_, stuck)]

    assert (ends[0].result, ends[1].state, ends[1].error["type"]) == (42, "failed", "TimeoutError")
    assert time.monotonic() - began < 60


async def test_what_comes_from_any_other_thread_is_waited_for(desk):
    lone = Tasks("lone")

    @lone.task()
    async def ask(*, desk: Desk) -> str:
        """Ask a thread of its own. Safe to run twice: it only asks."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def work() -> None:
            desk.returns.wait(5)
            loop.call_soon_threadsafe(answer.set_result, "answered")

        threading.Thread(target=work, daemon=True).start()
        return await answer

    @lone.task()
    async def hand_over(*, desk: Desk) -> str:
        """Use the loop's own threads. Safe to run twice: it only asks."""
        await asyncio.to_thread(desk.returns.wait, 5)
        return "answered"

    async with Rehearsal(lone, resources={Desk: desk}) as rehearsal:
        for task in (ask, hand_over):
            desk.returns.clear()
            asyncio.get_running_loop().call_later(0.05, desk.returns.set)
            run = await task.kiq()
            await rehearsal.settle()
            assert rehearsal.run(run).result == "answered"


async def test_priorities_uniques_needs_and_pauses_hold_as_in_production(desk):
    actor = Actor("ada", "a test")
    async with rehearsed(desk, concurrency=1) as rehearsal:
        steering = rehearsal.platform.ledger.steering
        await steering.pause("post", actor)
        low = await end.kicker().with_labels(priority="low").kiq("low")
        urgent = await end.kicker().with_labels(priority="urgent").kiq("urgent")
        once = [await rehearsal.platform.submit(new_run("end", '{"how": "u"}', unique=Unique(key="k"))) for _ in "ab"]
        after = await rehearsal.platform.submit(
            new_run("end", '{"how": "after"}', after=After(runs=[rehearsal.run(low).id]))
        )
        await rehearsal.advance(DAY)
        held = {run.state for run in rehearsal.runs()}
        await steering.resume("post", actor)
        await rehearsal.settle()
        runs = sorted(rehearsal.runs(), key=lambda run: run.attempts[0].started_at)

    assert held == {"queued", "pending"}
    assert [each.created for each in once] == [True, False]
    assert {run.state for run in runs} == {"completed"}
    assert rehearsal.run(after.id).state == "completed"
    assert rehearsal.run(urgent).priority == 3


async def test_what_is_wrong_is_refused_as_in_production(desk):
    async with rehearsed(desk) as rehearsal:
        wrong = await remind.kiq(17)
        await end.kicker().with_labels(idempotency_key="k").kiq("one")
        with pytest.raises(SendTaskError) as refused:
            await end.kicker().with_labels(idempotency_key="k").kiq("two")
        with pytest.raises(SendTaskError) as too_much:
            await end.kiq("x" * 300_000)
        await rehearsal.settle()

    assert isinstance(refused.value.__cause__, IdempotencyConflictError)
    assert isinstance(too_much.value.__cause__, InvalidArgumentsError)
    assert "the arguments of post.remind do not fit: order:" in rehearsal.run(wrong).error["message"]


async def test_a_failed_run_is_run_again(desk):
    async with rehearsed(desk) as rehearsal:
        task = await end.kiq("fail")
        await rehearsal.settle()
        run = rehearsal.run(task).id
        again = await rehearsal.platform.ledger.replays.replay(run, Actor("ada", "a test"), args={"how": "well"})
        await rehearsal.settle()

    assert (rehearsal.run(again.id).state, rehearsal.run(again.id).replay_of) == ("completed", run)


async def test_a_run_that_snoozes_for_ever_is_noticed_and_not_waited_for(desk, monkeypatch):
    monkeypatch.setattr("carillon.testing.rehearsal.MOST_STOPS", 50)
    async with rehearsed(desk) as rehearsal:
        await end.kiq("snooze")
        with pytest.raises(AssertionError, match="something was due at 50 moments"):
            await rehearsal.advance(DAY)


async def test_tasks_are_given_back_and_the_clock_goes_on_when_a_rehearsal_ends(desk):
    budget = remind.budget
    async with rehearsed(desk) as rehearsal:
        await wait_at_the_gate.kiq()
        await rehearsal.settle()
        with pytest.raises(RuntimeError, match="one rehearsal at a time"):
            await rehearsed(desk).__aenter__()

    with pytest.raises(SendTaskError) as refused:
        await remind.kiq("order-17")

    assert isinstance(refused.value.__cause__, NotConnectedError)
    assert remind.budget is budget
    assert desk.seen["told"] == 1
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 1
    assert "call_at" not in vars(asyncio.get_running_loop())


async def test_no_rehearsal_spends_the_retry_budget_of_another(desk):
    lone, due = Tasks("lone"), []

    @lone.task(retry=Retry(attempts=2, base=timedelta(seconds=1), per_second=1))
    async def fail() -> None:
        """Fail. Safe to run twice: it only raises."""
        raise TransientError("not now")

    for _ in range(5):
        async with Rehearsal(lone, at=NEW_YEAR) as rehearsal:
            run = await fail.kiq()
            await rehearsal.settle()
            due.append(rehearsal.run(run).run_at)

    assert max(due) <= NEW_YEAR + timedelta(seconds=1)


async def test_runs_of_two_domains_that_end_at_one_moment_both_end():
    domains = [Tasks("post"), Tasks("bank")]

    async def sleep() -> str:
        """Sleep a minute. Safe to run twice: it only sleeps."""
        await asyncio.sleep(60)
        return "rested"

    sleeping = [tasks.task()(sleep) for tasks in domains]

    async with Rehearsal(*domains) as rehearsal:
        runs = [await task.kiq() for task in sleeping for _ in range(3)]
        await rehearsal.advance(MINUTE)

        assert [rehearsal.run(run).result for run in runs] == ["rested"] * 6


async def test_a_timer_that_another_of_its_moment_cancels_does_not_fire():
    held, fired, timers = HeldClock(NEW_YEAR), [], []

    def fire(number: int) -> None:
        fired.append(number)
        for timer in timers:
            timer.cancel()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: fired.append(context))
    timers += [held.call_at(1.0, fire, number, context=None) for number in range(3)]
    held.move_to(NEW_YEAR + timedelta(seconds=1))
    await asyncio.sleep(0)

    assert fired == [0]
    assert held.next_timer() is None


async def test_what_the_twin_does_not_do_says_what_does(desk):
    async with rehearsed(desk) as rehearsal:
        with pytest.raises(NotInMemoryError, match=r"the in-memory twin has no SQL, .* test that on PostgreSQL"):
            await rehearsal.platform.history.recent_events()
        with pytest.raises(NotInMemoryError, match="no transactions"):
            rehearsal.platform.ledger.transaction()
        with pytest.raises(NotInMemoryError):
            await rehearsal.platform.ledger.dead_letters.runs("post")


async def test_a_thousand_runs_take_less_than_two_seconds(desk):
    began = time.process_time()
    async with rehearsed(desk) as rehearsal:
        await end.kiq_many({"how": str(number)} for number in range(1_000))
        await rehearsal.settle()
        ended = sum(run.state == "completed" for run in rehearsal.runs(end))

    assert ended == 1_000
    # Of the processor: other programs may be busy.
    assert time.process_time() - began < 2


async def test_a_test_of_one_task_takes_less_than_fifty_milliseconds(desk):
    async def one() -> float:
        began = time.process_time()
        async with rehearsed(desk) as rehearsal:
            await end.kiq("well")
            await rehearsal.settle()
        return time.process_time() - began

    await one()
    assert min([await one() for _ in range(3)]) < 0.05
