"""What every transport must do: the same suite against PostgreSQL, against RabbitMQ, and for the in-memory twin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from behind import let_it_have_ended, silence_workers
from shop import OrderPlaced, Shop, shop_service
from taskiq import TaskiqMiddleware
from taskiq.exceptions import SendTaskError

from carillon.cloudevents import Envelope
from carillon.errors import IdempotencyConflictError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.testing import eventually, running

pytestmark = pytest.mark.long(seconds=70)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def new_run(task: str, args: str = "{}", **options: Any) -> NewRun:
    return NewRun(id=options.pop("id", None) or new_id(), domain="shop", task=f"shop.{task}", args=args, **options)


async def ended(platform: Platform, run: UUID, *, within: float = 15) -> Any:
    async def look():
        row = await platform.history.run(run)
        return row if row and row["finished_at"] else None

    return await eventually(look, within=within)


async def kiq(platform: Platform, shop: Shop, name: str, *args: Any, **labels: Any) -> Any:
    service = shop_service(platform.settings, shop)
    service._broker(platform)
    task = service.tasks.declared[f"shop.{name}"]
    return await task.kicker().with_labels(**labels).kiq(*args)


async def test_a_submitted_task_runs_once_and_its_result_can_be_waited_for(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        task = await kiq(platform, shop, "add", 40)
        result = await task.wait_result(timeout=10, check_interval=0.02)

    assert (result.is_err, result.return_value) == (False, 42)
    assert shop.done["add 40"] == 1
    run = await platform.history.run(UUID(task.task_id))
    assert (run["state"], run["attempt"]) == ("completed", 1)
    assert [a["outcome"] for a in await platform.history.attempts(run["id"])] == ["completed"]


async def test_a_plain_function_runs_in_a_thread(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        task = await kiq(platform, shop, "shout", "hello")
        result = await task.wait_result(timeout=10, check_interval=0.02)

    assert result.return_value == "HELLO"


async def test_a_transient_error_is_retried_and_every_attempt_is_kept(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        task = await kiq(platform, shop, "stumble", 2)
        run = await ended(platform, UUID(task.task_id))

    attempts = await platform.history.attempts(run["id"])
    assert (run["state"], run["result"]) == ("completed", "arrived")
    assert [a["outcome"] for a in attempts] == ["retried", "retried", "completed"]
    assert attempts[0]["error"]["message"] == "the floor is wet"
    assert "TransientError" in attempts[0]["error"]["traceback"]


async def test_a_run_fails_when_its_attempts_are_used_up(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        task = await kiq(platform, shop, "stumble", 9)
        run = await ended(platform, UUID(task.task_id))
        result = await task.wait_result(timeout=10, check_interval=0.02)

    assert (run["state"], run["attempt"]) == ("failed", 3)
    assert result.is_err
    assert "the floor is wet" in str(result.error)


@pytest.mark.parametrize(
    ("task", "args", "state", "says"),
    [
        ("refuse", '{"how": "never"}', "failed", "it can never work"),
        ("refuse", '{"how": "cancel"}', "cancelled", "nobody wants it"),
        ("dawdle", "{}", "failed", "ran longer than its timeout of 0.1 s"),
        ("return_a_socket", "{}", "failed", "the result cannot be kept"),
        ("no_such_task", "{}", "failed", "is not a task of shop"),
        ("add", '{"a": "many"}', "failed", "the arguments of shop.add do not fit: a:"),
        ("add", '{"a": 1, "c": 1}', "failed", "c: Extra inputs are not permitted"),
    ],
)
async def test_what_cannot_work_ends_at_once_and_says_why(platform, shop, task, args, state, says):
    async with running(shop_service(platform.settings, shop), platform):
        accepted = await platform.submit(new_run(task, args))
        run = await ended(platform, accepted.id)

    assert (run["state"], run["attempt"]) == (state, 1)
    assert says in run["error"]["message"]


async def test_a_snooze_is_not_counted_as_an_attempt(platform, shop):
    async def snoozed_more_often_than_the_policy_allows():
        row = await platform.history.run(accepted.id)
        return row["uncounted"] > 4

    async with running(shop_service(platform.settings, shop), platform):
        accepted = await platform.submit(new_run("refuse", '{"how": "snooze"}'))
        await eventually(snoozed_more_often_than_the_policy_allows)

    assert (await platform.history.run(accepted.id))["state"] in {"queued", "running"}


async def test_a_delayed_run_starts_when_it_is_due_and_not_before(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        due = datetime.now(UTC) + timedelta(seconds=0.7)
        later = await platform.submit(new_run("add", '{"a": 1}', run_at=due))
        sooner = await platform.submit(new_run("add", '{"a": 2}'))
        first, second = await ended(platform, sooner.id), await ended(platform, later.id)

    assert first["started_at"] < due <= second["started_at"]


async def test_a_run_that_expired_is_cancelled_and_never_runs(platform, shop):
    past = datetime.now(UTC) - timedelta(seconds=1)
    late = await platform.submit(new_run("add", '{"a": 7}', expires_at=past))

    async with running(shop_service(platform.settings, shop), platform):
        run = await ended(platform, late.id)

    assert run["state"] == "cancelled"
    assert "was not started before" in run["error"]["message"]
    assert shop.done["add 7"] == 0


async def test_fifty_submits_with_one_idempotency_key_are_one_run(platform, shop):
    tasks = await asyncio.gather(*(kiq(platform, shop, "add", 5, idempotency_key="once") for _ in range(50)))

    async with running(shop_service(platform.settings, shop), platform):
        await ended(platform, UUID(tasks[0].task_id))

    assert len({task.task_id for task in tasks}) == 1
    assert shop.done["add 5"] == 1


async def test_the_same_key_with_other_arguments_is_refused(platform, shop):
    await kiq(platform, shop, "add", 5, idempotency_key="once")

    with pytest.raises(SendTaskError) as refused:
        await kiq(platform, shop, "add", 6, idempotency_key="once")

    assert isinstance(refused.value.__cause__, IdempotencyConflictError)


async def test_an_event_is_answered_once_by_everyone_who_hears_it(platform, shop):
    placed = Envelope.of(OrderPlaced(order="o1"), source="/customers", id="1")

    async with running(shop_service(platform.settings, shop), platform):
        first = await platform.say(placed, actor="test")
        again = await platform.say(placed, actor="test")
        await eventually(lambda: done(shop, "shipped o1"))
        await eventually(lambda: done(shop, "thanked for o1"))

    assert (first, again) == (True, False)
    assert shop.done == {
        "packed o1 because of shop.order_placed.v1": 1,
        "thanked for o1": 1,
        "shipped o1": 1,
    }


async def done(shop: Shop, what: str) -> int:
    return shop.done[what]


async def test_what_a_run_says_is_tied_to_it_and_to_what_it_caused(platform, shop):
    placed = Envelope.of(OrderPlaced(order="o2"), source="/customers", id="2")

    async with running(shop_service(platform.settings, shop), platform):
        await platform.say(placed, actor="test")
        await eventually(lambda: done(shop, "shipped o2"))

    answers = await platform.history.answers_to(placed.key)
    (packing,) = [answer for answer in answers if answer["task"] == "shop.pack_order"]
    (packed,) = await platform.history.said_by(packing["id"])
    (shipping,) = await platform.history.answers_to(packed["id"])
    assert (packed["type"], shipping["task"]) == ("shop.order_packed.v1", "shop.ship_order")


async def test_an_event_without_its_answers_is_answered_by_the_sweeper(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        lost = Envelope.of(OrderPlaced(order="o3"), source="/customers", id="3")
        await platform.ledger.say([lost.new_event(actor="test")], [])
        await platform.ledger.mark_published(lost.key)
        await eventually(lambda: done(shop, "shipped o3"), within=25)

    assert shop.done["thanked for o3"] == 1


async def test_a_run_whose_worker_went_silent_is_rescued(platform, shop):
    dead = new_id()
    accepted = await platform.submit(new_run("add", '{"a": 3}', run_at=datetime.now(UTC)))
    await platform.ledger.enrol(dead, "shop", "elsewhere", 1, "0", 1)
    assert await platform.ledger.start((accepted.id, 1, dead))
    await silence_workers(platform)

    async with running(shop_service(platform.settings, shop), platform):
        run = await ended(platform, accepted.id)

    assert (run["state"], run["attempt"], run["lost"]) == ("completed", 2, 1)
    assert [a["outcome"] for a in await platform.history.attempts(run["id"])] == ["lost", "completed"]


async def test_a_late_end_of_a_rescued_attempt_changes_nothing(platform, shop):
    dead = new_id()
    accepted = await platform.submit(new_run("wait_at_the_gate", '{"name": "x"}', run_at=datetime.now(UTC)))
    await platform.ledger.enrol(dead, "shop", "elsewhere", 1, "0", 1)
    await platform.ledger.start((accepted.id, 1, dead))
    await platform.ledger.retire(dead)

    async with running(shop_service(platform.settings, shop), platform):
        await eventually(lambda: entered(shop))
        from carillon.ledger.records import Finish, State

        late = Finish(id=accepted.id, attempt=1, state=State.COMPLETED, outcome="completed", result='"late"')
        applied = await platform.ledger.finish((dead, late))
        shop.gate.set()
        run = await ended(platform, accepted.id)

    assert applied.applied is False
    assert run["result"] == "x"


async def entered(shop: Shop) -> bool:
    return shop.entered.is_set()


async def test_a_worker_that_is_stopped_hands_back_what_it_cannot_finish(platform, shop, monkeypatch):
    monkeypatch.setattr(platform.settings, "carillon_drain_seconds", 0.1)

    async with running(shop_service(platform.settings, shop), platform):
        accepted = await platform.submit(new_run("wait_at_the_gate", '{"name": "y"}'))
        await eventually(lambda: entered(shop))
    handed_back = await platform.history.run(accepted.id)
    shop.gate.set()
    async with running(shop_service(platform.settings, shop), platform):
        run = await ended(platform, accepted.id)

    assert handed_back["state"] == "retrying"
    assert run["state"] == "completed"
    assert shop.done["y"] == 1


async def test_a_worker_that_is_stopped_finishes_what_it_can(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        accepted = await platform.submit(new_run("wait_at_the_gate", '{"name": "z"}'))
        await eventually(lambda: entered(shop))
        asyncio.get_running_loop().call_later(0.2, shop.gate.set)

    assert (await platform.history.run(accepted.id))["state"] == "completed"


async def test_what_ended_before_the_retention_is_forgotten_and_nothing_else(platform, shop):
    old, new = [await platform.submit(new_run("add", f'{{"a": {number}}}')) for number in (1, 2)]

    async with running(shop_service(platform.settings, shop), platform):
        await ended(platform, old.id)
        await ended(platform, new.id)
        await let_it_have_ended(platform, old.id, hours=193)
        await eventually(lambda: is_gone(platform, old.id))

    assert await platform.history.attempts(old.id) == []
    assert (await platform.history.run(new.id))["state"] == "completed"


async def is_gone(platform: Platform, run: UUID) -> bool:
    return await platform.history.run(run) is None


class Saboteur(TaskiqMiddleware):
    """Raises in every hook."""

    def pre_execute(self, message):
        raise RuntimeError("pre_execute")

    def post_execute(self, message, result):
        raise RuntimeError("post_execute")

    def on_error(self, message, result, exception):
        raise RuntimeError("on_error")

    def post_save(self, message, result):
        raise RuntimeError("post_save")


async def test_a_middleware_that_raises_in_every_hook_changes_no_end(platform, shop):
    service = shop_service(platform.settings, shop, middlewares=[Saboteur()])

    async with running(service, platform):
        good = await platform.submit(new_run("add", '{"a": 1}'))
        bad = await platform.submit(new_run("refuse", '{"how": "never"}'))
        ends = [(await ended(platform, run.id))["state"] for run in (good, bad)]

    assert ends == ["completed", "failed"]
    failures = service.metrics.hook_failures.labels("Saboteur", "pre_execute")._value.get()
    assert failures == 2


async def cut_connections(platform: Platform) -> int:
    """End every other connection to this database, and with it every LISTEN and every statement under way."""
    async with platform.ledger.transaction() as connection:
        return await connection.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )


@pytest.mark.real("connections")
async def test_nothing_is_lost_or_doubled_when_postgresql_drops_every_connection(platform, shop):
    runs = [new_run("add", f'{{"a": {number}}}') for number in range(300)]

    async with running(shop_service(platform.settings, shop), platform):
        for run in runs[:150]:
            await platform.submit(run)
        cut = await cut_connections(platform)
        for run in runs[150:]:
            await eventually(lambda run=run: submitted(platform, run))
        await eventually(lambda: all_ended(platform, len(runs)), within=40)

    assert cut > 0
    assert await states(platform) == {"completed": 300}


async def submitted(platform: Platform, run: NewRun) -> bool:
    try:
        await platform.submit(run)
    except Exception:  # noqa: BLE001 - whatever it was, it was not accepted
        return False
    return True


async def states(platform: Platform) -> dict[str, int]:
    rows = await platform.history.count_by_state(datetime.now(UTC) - timedelta(hours=1))
    return {row["state"]: row["count"] for row in rows}


async def all_ended(platform: Platform, count: int) -> bool:
    counts = await states(platform)
    return sum(counts.get(state, 0) for state in ("completed", "failed", "cancelled")) == count
