"""Workflows, on both transports and the twin: steps, fan-in, sleeps, events, approvals, cancellation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from bakery import Bakery, OrderPaid, bakery_service, bakery_tasks

from carillon.cloudevents import Envelope
from carillon.errors import InvalidArgumentsError, NotFoundError, RunStateError
from carillon.ids import new_id
from carillon.ledger.audit import Actor
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.testing import eventually, running

pytestmark = pytest.mark.long(seconds=80)

ADA = Actor("ada", "a test")


@pytest.fixture
def bakery() -> Bakery:
    return Bakery()


@pytest.fixture
async def service(platform: Platform, bakery: Bakery):
    tasks, _ = bakery_tasks()
    async with running(bakery_service(platform.settings, bakery, tasks), platform) as service:
        yield service


async def submit(platform: Platform, workflow: str, **arguments: Any) -> UUID:
    options = {name: arguments.pop(name) for name in ("deadline_at",) if name in arguments}
    args = orjson.dumps(arguments).decode()
    run = NewRun(id=new_id(), domain="bakery", task=f"bakery.{workflow}", args=args, **options)
    return (await platform.submit(run)).id


async def ended(platform: Platform, run: UUID) -> Any:
    async def look():
        row = await platform.history.run(run)
        return row if row["finished_at"] else None

    return await eventually(look, within=20)


async def waiting(platform: Platform, run: UUID) -> Any:
    async def look():
        row = await platform.history.run(run)
        return row if row["state"] == "pending" else None

    return await eventually(look, within=20)


async def children(platform: Platform, run: UUID) -> list[Any]:
    history = await platform.ledger.workflows.history(run)
    return [await platform.history.run(step.run_id) for step in history.steps if step.run_id is not None]


@pytest.mark.usefixtures("service")
async def test_steps_are_runs_whose_results_the_code_gets(platform, bakery):
    run = await ended(platform, await submit(platform, "make", what="rye"))

    assert (run["state"], run["result"]) == ("completed", "rye bread")
    assert bakery.done == ["mix rye", "bake rye dough"]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_a_fan_out_of_twenty_is_gathered_in_order(platform, bakery, concurrency):
    whats = [str(n) for n in range(20)]

    run = await ended(platform, await submit(platform, "make_all", whats=whats, concurrency=concurrency))

    assert run["result"]["results"] == [f"{n} dough" for n in range(20)]
    assert sorted(bakery.done) == sorted(f"mix {n}" for n in range(20))


@pytest.mark.usefixtures("service")
async def test_a_fan_in_goes_on_when_members_fail_as_far_as_its_policy_allows(platform, bakery):
    bakery.fails["mix b"] = -1

    enough = await ended(platform, await submit(platform, "make_all", whats=["a", "b", "c"], need=0.6))
    too_few = await ended(platform, await submit(platform, "make_all", whats=["a", "b", "c"], need=0.7))

    assert (enough["result"]["successful"], enough["result"]["failed"]) == (2, 1)
    assert "cannot mix b" in enough["result"]["failures"][0]["reason"]
    assert too_few["state"] == "failed"
    assert "2 of 3 members went well, and 3 have to" in too_few["error"]["message"]


@pytest.mark.usefixtures("service")
async def test_a_step_that_fails_for_good_is_an_error_at_its_await(platform):
    run = await ended(platform, await submit(platform, "stumble", why="no flour"))

    assert run["result"] == "PermanentError: bakery.refuse"


@pytest.mark.usefixtures("service")
async def test_a_workflow_and_a_task_by_its_name_are_steps_too(platform):
    run = await ended(platform, await submit(platform, "make_by_others", what="rye"))

    assert run["result"] == ["rye bread", "rye bread dough"]


@pytest.mark.usefixtures("service")
async def test_an_event_wakes_the_workflow_that_awaits_it_and_no_other(platform):
    mine, other = await submit(platform, "sell", order="17"), await submit(platform, "sell", order="18")
    await waiting(platform, mine)
    await waiting(platform, other)

    await platform.say(Envelope.of(OrderPaid(order="17", cents=5), source="/bank"), actor="bank")

    assert (await ended(platform, mine))["result"] == {"sold": True, "cents": 5}
    assert (await platform.history.run(other))["state"] == "pending"


@pytest.mark.usefixtures("service")
async def test_an_event_that_came_before_it_was_awaited_counts_since_the_submit(platform, bakery):
    await platform.ledger.steering.pause("bakery.sell", ADA)
    run = await submit(platform, "sell", order="17")
    await platform.say(Envelope.of(OrderPaid(order="17", cents=5), source="/bank"), actor="bank")
    await platform.ledger.steering.resume("bakery.sell", ADA)

    assert (await ended(platform, run))["result"] == {"sold": True, "cents": 5}


@pytest.mark.usefixtures("service")
async def test_a_person_decides_once(platform):
    run = await submit(platform, "ask", question="Shall we?")
    await waiting(platform, run)
    decision = {"approved": True, "by": "ada", "reason": "why not", "at": datetime.now(UTC).isoformat()}

    await platform.ledger.workflows.decide(run, 1, decision, ADA, "why not")

    assert (await ended(platform, run))["result"] == {"approved": True, "by": "ada", "reason": "why not"}
    with pytest.raises(NotFoundError, match="waits for no decision"):
        await platform.ledger.workflows.decide(run, 1, decision, ADA, None)


@pytest.mark.usefixtures("service")
async def test_cancelling_a_workflow_cancels_its_steps_and_ends_it(platform, bakery):
    run = await submit(platform, "hurry", what="x")
    await bakery.entered.wait()
    (child,) = await children(platform, run)

    await platform.ledger.steering.cancel(run, ADA, "enough")

    row = await ended(platform, run)
    assert (row["state"], row["error"]["message"]) == ("cancelled", "cancelled by ada: enough")
    assert (await ended(platform, child["id"]))["state"] == "cancelled"


@pytest.mark.usefixtures("service")
async def test_a_deadline_ends_a_workflow_that_waits(platform):
    soon = datetime.now(UTC) + timedelta(seconds=1)
    run = await submit(platform, "ask", question="Shall we?", deadline_at=soon)

    row = await ended(platform, run)

    assert (row["state"], row["error"]["type"]) == ("failed", "DeadlineExceeded")


@pytest.mark.usefixtures("service")
async def test_a_paused_workflow_goes_on_when_it_is_resumed(platform, bakery):
    run = await submit(platform, "hurry", what="x")
    await bakery.entered.wait()
    await platform.ledger.steering.pause_run(run, ADA)
    bakery.gate.set()
    child = (await platform.ledger.workflows.history(run)).steps
    await ended(platform, next(step.run_id for step in child if step.run_id is not None))
    assert (await platform.history.run(run))["state"] == "paused"

    await platform.ledger.steering.resume_run(run, ADA)

    assert (await ended(platform, run))["result"] == "x"


@pytest.mark.usefixtures("service")
async def test_what_takes_back_is_not_cancelled_with_its_saga(platform, bakery):
    bakery.fails["ship"] = 3
    await platform.ledger.steering.pause("bakery.refund", ADA)
    run = await submit(platform, "deliver", order="17")
    await eventually(lambda: asked_for(platform, run, "bakery.refund"), within=20)

    await platform.ledger.steering.cancel(run, ADA, "enough")
    await platform.ledger.steering.resume("bakery.refund", ADA)

    assert (await ended(platform, run))["state"] == "cancelled"
    assert bakery.holds == set()
    assert bakery.done[-2:] == ["refund", "release"]


async def asked_for(platform: Platform, run: UUID, name: str) -> bool:
    history = await platform.ledger.workflows.history(run)
    return any(step.name == name for step in history.steps)


@pytest.mark.usefixtures("service")
async def test_a_fork_goes_on_from_the_step_that_failed_and_does_nothing_again(platform, bakery):
    bakery.fails["bake rye dough"] = 3
    failed = await ended(platform, await submit(platform, "make", what="rye"))
    assert (failed["state"], bakery.done) == ("failed", ["mix rye"])

    fork = await platform.ledger.forks.fork(failed["id"], ADA, "the oven works again")
    again = await platform.ledger.forks.fork(failed["id"], ADA)

    run = await ended(platform, fork.id)
    assert (run["state"], run["result"], run["replay_of"]) == ("completed", "rye bread", failed["id"])
    assert bakery.done == ["mix rye", "bake rye dough"]
    assert (again.id, again.created) == (fork.id, False)


@pytest.mark.usefixtures("service")
async def test_a_fork_from_an_earlier_step_does_again_what_came_after(platform, bakery):
    whole = await ended(platform, await submit(platform, "make", what="rye"))

    fork = await platform.ledger.forks.fork(whole["id"], ADA, from_step=1)

    assert (await ended(platform, fork.id))["result"] == "rye bread"
    assert bakery.done == ["mix rye", "bake rye dough"] * 2


@pytest.mark.usefixtures("service")
async def test_what_cannot_be_forked_says_why(platform):
    whole = await ended(platform, await submit(platform, "make", what="rye"))
    plain = await ended(platform, await submit(platform, "mix", what="rye"))
    waits = await submit(platform, "ask", question="Shall we?")

    for run, from_step, kind, told in [
        (whole["id"], 4, InvalidArgumentsError, "steps 1 to 2"),
        (plain["id"], None, RunStateError, "has no recorded steps"),
        (waits, None, RunStateError, "has not ended"),
    ]:
        with pytest.raises(kind, match=told):
            await platform.ledger.forks.fork(run, ADA, from_step=from_step)


@pytest.mark.real("of two transactions that meet at one row")
@pytest.mark.parametrize("transport", ["postgres"])
@pytest.mark.usefixtures("service")
async def test_no_end_is_missed_when_two_processes_tell_one_workflow_at_once(platform, bakery):
    run = await submit(platform, "hold_both")
    await waiting(platform, run)
    steps = await children(platform, run)
    async with platform.ledger.transaction() as connection:
        # Somebody else is about to tell it of an end, and has the row.
        await connection.execute("update carillon.runs_live set told = told + 1 where id = $1", run)
        await connection.execute(
            "update carillon.steps set outcome = 'completed', result = '\"a\"', ended_at = now() "
            "where workflow_id = $1 and seq = 1",
            run,
        )
        bakery.gate.set()
        await eventually(lambda: someone_waits_for(connection), within=20)

    assert (await ended(platform, run))["result"] == ["a", "b"]
    assert len(steps) == 2


async def someone_waits_for(connection: Any) -> bool:
    mine = "select pg_backend_pid()"
    return bool(
        await connection.fetchval(
            f"select exists(select from pg_stat_activity where ({mine}) = any(pg_blocking_pids(pid)))"
        )
    )
