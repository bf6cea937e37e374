"""What people see of workflows, on both transports and the twin: steps, what they came after, the graph, decisions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
import pytest
from bakery import Bakery, bakery_service, bakery_tasks

from carillon.errors import NotFoundError, RunStateError
from carillon.ids import new_id
from carillon.ledger.audit import AuditSearch
from carillon.ledger.graph import predecessors
from carillon.ledger.history import Search, StepPlace
from carillon.ledger.records import NewRun
from carillon.operator import get_operator
from carillon.platform import Platform
from carillon.testing import eventually, running

pytestmark = pytest.mark.long(seconds=60)


@pytest.fixture
def bakery() -> Bakery:
    return Bakery()


@pytest.fixture
async def service(platform: Platform, bakery: Bakery):
    tasks, _ = bakery_tasks()
    async with running(bakery_service(platform.settings, bakery, tasks), platform) as service:
        yield service


async def submit(platform: Platform, task: str, **arguments: Any) -> UUID:
    run = NewRun(id=new_id(), domain="bakery", task=f"bakery.{task}", args=orjson.dumps(arguments).decode())
    return (await platform.submit(run)).id


async def until(platform: Platform, run: UUID, *states: str) -> Any:
    async def look():
        row = await platform.history.run(run)
        return row if row["state"] in states else None

    return await eventually(look, within=20)


async def ended(platform: Platform, run: UUID) -> Any:
    return await until(platform, run, "completed", "failed", "cancelled", "partial")


@pytest.mark.usefixtures("service")
async def test_a_chain_tells_of_each_step_how_it_ended_and_what_it_came_after(platform, bakery):
    bakery.fails["mix rye"] = 1
    run = await submit(platform, "make", what="rye")
    await ended(platform, run)

    workflow = await platform.history.workflow(run)

    mix, bake = workflow.steps
    assert [(step.seq, step.kind, step.name, step.state) for step in workflow.steps] == [
        (1, "task", "bakery.mix", "completed"), (2, "task", "bakery.bake", "completed"),
    ]  # fmt: skip
    assert (mix.after, bake.after, mix.attempts, bake.attempts) == ([], [1], 2, 1)
    assert (mix.result, bake.result, bake.waits_for, bake.error) == ("rye dough", "rye bread", None, None)
    assert bake.seconds is not None
    assert mix.asked_at <= mix.started_at <= mix.ended_at <= bake.ended_at
    assert (await platform.history.run(bake.run_id))["parent_id"] == run
    assert (workflow.counts, workflow.waits_for, workflow.more) == ({"completed": 2}, None, False)
    assert (workflow.version, workflow.code_changes) == (1, ())


@pytest.mark.usefixtures("service")
async def test_steps_that_were_asked_for_together_came_after_the_same(platform):
    run = await submit(platform, "make_all", whats=["a", "b", "c"])
    await ended(platform, run)

    steps = (await platform.history.workflow(run)).steps

    assert [(step.seq, list(step.after), step.beside) for step in steps] == [(1, [], None), (2, [], 1), (3, [], 1)]


@pytest.mark.usefixtures("service")
async def test_many_steps_are_read_page_by_page_and_counted_all(platform, bakery):
    bakery.fails["mix 7"] = -1
    run = await submit(platform, "make_all", whats=[str(n) for n in range(12)], need=0, concurrency=4)
    await ended(platform, run)

    pages = [await platform.history.workflow(run, after=after, limit=5) for after in (0, 5, 10)]

    assert [[step.seq for step in page.steps] for page in pages] == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]
    assert [page.more for page in pages] == [True, True, False]
    assert [dict(page.counts) for page in pages] == [{"completed": 11, "failed": 1}] * 3
    whole = await platform.history.workflow(run)
    assert pages[2].steps[0].after == predecessors(whole.steps)[11] != []
    failed = next(step for step in whole.steps if step.state == "failed")
    assert failed.error == {"type": "TransientError", "message": "cannot mix 7"}
    assert failed.attempts == 3


@pytest.mark.usefixtures("service")
async def test_a_step_under_way_tells_what_it_waits_for(platform, bakery):
    asked, slept = (
        await submit(platform, "ask", question="Shall we?"),
        await submit(platform, "make_tomorrow", what="x"),
    )
    sold, held = await submit(platform, "sell", order="17"), await submit(platform, "hurry", what="x")
    await bakery.entered.wait()
    for run in (asked, slept, sold, held):
        await until(platform, run, "pending")

    async def seen(run: UUID) -> Any:
        return await platform.history.workflow(run)

    async def asleep():
        return len((await seen(slept)).steps) == 2

    await eventually(asleep)

    ask, (_, sleep), sell = (await seen(asked)).steps[0], (await seen(slept)).steps, (await seen(sold)).steps[0]
    assert ask.waits_for.startswith("It waits for somebody to approve it, until 20")
    assert sleep.waits_for.startswith("It sleeps, until 20")
    assert sell.waits_for.startswith('It waits for an event bank.order_paid.v1 with order = "17", until 20')
    assert {step.state for step in (ask, sleep, sell)} == {"waiting"}
    held_steps = {step.kind: step for step in (await seen(held)).steps}
    assert held_steps["task"].waits_for == "Its run executes, attempt 1"
    assert (held_steps["task"].state, held_steps["task"].attempts) == ("running", 1)
    assert (await seen(asked)).waits_for == "It waits for 1 approval"
    assert (await seen(held)).waits_for == "It waits for 1 moment and 1 run"
    bakery.gate.set()


@pytest.mark.usefixtures("service")
async def test_a_large_result_is_left_out_and_its_size_told(platform):
    run = await submit(platform, "make", what="r" * 3000)
    await ended(platform, run)

    step = (await platform.history.workflow(run)).steps[0]

    assert step.result is None
    assert step.result_bytes == 3000 + len('" dough"')


@pytest.mark.usefixtures("service")
async def test_what_is_no_workflow_is_seen_as_none(platform):
    run = await submit(platform, "mix", what="rye")
    await ended(platform, run)

    assert await platform.history.workflow(run) is None
    assert await platform.history.workflow(new_id()) is None


@pytest.mark.usefixtures("service")
async def test_a_workflow_that_has_not_begun_is_one_without_steps(platform):
    await get_operator(platform).pause(task="bakery.make")
    run = await submit(platform, "make", what="rye")

    workflow = await platform.history.workflow(run)

    assert (list(workflow.steps), workflow.version, workflow.waits_for) == ([], None, "It goes on at once")
    await get_operator(platform).resume(task="bakery.make")
    await ended(platform, run)


@pytest.mark.usefixtures("service")
async def test_a_fan_out_is_one_box_of_the_graph_with_counts(platform, bakery):
    bakery.fails["mix 3"] = -1
    run = await submit(platform, "make_all", whats=[str(n) for n in range(20)], need=0, concurrency=8)
    await ended(platform, run)

    (box,) = await platform.history.graph(run)

    assert (box.first, box.last, box.kind, box.name, box.layer) == (1, 20, "task", "bakery.mix", 0)
    assert (dict(box.counts), box.step, list(box.after)) == ({"completed": 19, "failed": 1}, None, [])


@pytest.mark.usefixtures("service")
async def test_what_waits_for_people_is_listed_page_by_page_until_somebody_decides(platform):
    runs = [await submit(platform, "ask", question=f"Shall we {n}?") for n in range(3)]
    for run in runs:
        await until(platform, run, "pending")
    ada = get_operator(platform, by="ada", reason="as agreed")

    first = await ada.approvals(limit=2)
    last = first[-1]
    rest = await ada.approvals(StepPlace(last["at"], last["workflow_id"], last["seq"]), limit=2)
    await ada.decide(runs[0], 1, approve=True)
    await ada.decide(str(runs[1]), 1, approve=False, reason="not today")

    assert {row["workflow_id"] for row in (*first, *rest)} == set(runs)
    assert [len(first), len(rest)] == [2, 1]
    assert {(row["kind"], row["task"], row["state"]) for row in first} == {("approval", "bakery.ask", "pending")}
    assert (await ended(platform, runs[0]))["result"] == {"approved": True, "by": "ada", "reason": "as agreed"}
    assert (await ended(platform, runs[1]))["result"] == {"approved": False, "by": "ada", "reason": "not today"}
    assert [row["workflow_id"] for row in await ada.approvals()] == [runs[2]]
    entries = [(await platform.audit.page(AuditSearch(subject=str(run))))[0] for run in runs[:2]]
    assert [(entry["action"], entry["actor"], entry["reason"]) for entry in entries] == [
        ("workflow.approved", "ada", "as agreed"), ("workflow.refused", "ada", "not today"),
    ]  # fmt: skip


@pytest.mark.usefixtures("service")
async def test_what_nobody_can_decide_is_refused_with_the_reason(platform):
    asked, plain, made = [
        await submit(platform, task, **args)
        for task, args in (("ask", {"question": "?"}), ("mix", {"what": "x"}), ("make", {"what": "x"}))
    ]
    await until(platform, asked, "pending")
    for run in (plain, made):
        await ended(platform, run)
    ada = get_operator(platform, by="ada")
    await ada.decide(asked, 1, approve=True)

    for run, step, error, words in (
        (asked, 1, RunStateError, "decided by ada already"),
        (asked, 2, NotFoundError, "has no step 2"),
        (made, 1, RunStateError, "no approval and no repair"),
        (plain, 1, NotFoundError, "is no workflow"),
        (new_id(), 1, NotFoundError, "no run has the id"),
    ):
        with pytest.raises(error, match=words):
            await ada.decide(run, step, approve=True)


@pytest.mark.usefixtures("service")
async def test_a_step_that_its_workflow_outlived_waits_no_more(platform):
    run = await submit(platform, "ask", question="Shall we?")
    await until(platform, run, "pending")
    ada = get_operator(platform, by="ada")
    await ada.cancel(run)
    await ended(platform, run)

    (step,) = (await platform.history.workflow(run)).steps

    assert (step.state, step.waits_for) == ("cancelled", None)
    assert await ada.approvals() == []
    with pytest.raises(RunStateError, match="has ended, so there is nothing to decide"):
        await ada.decide(run, 1, approve=True)


@pytest.mark.usefixtures("service")
async def test_a_workflow_that_ended_is_forked_once_by_an_operator(platform):
    run = await submit(platform, "ask", question="Shall we?")
    await until(platform, run, "pending")
    ada = get_operator(platform, by="ada", reason="asked again")
    with pytest.raises(RunStateError, match="has not ended"):
        await ada.fork(run)
    await ada.decide(run, 1, approve=False)
    await ended(platform, run)

    first, again = await ada.fork(run, 1), await ada.fork(run, 1)

    assert (first.created, again.created, again.id) == (True, False, first.id)
    await until(platform, first.id, "pending")
    await ada.decide(first.id, 1, approve=True)
    assert (await ended(platform, first.id))["result"]["approved"] is True


@pytest.mark.real(why="searches are questions to SQL")
@pytest.mark.usefixtures("service")
async def test_workflows_are_listed_newest_first_by_state_and_task(platform):
    made, asked = await submit(platform, "make", what="rye"), await submit(platform, "ask", question="?")
    await ended(platform, made)
    await until(platform, asked, "pending")

    async def found(**filters: Any) -> list[UUID]:
        return [row["id"] for row in await platform.history.workflows(Search(**filters))]

    assert await found() == [asked, made]
    assert await found(limit=1) == [asked]
    assert await found(states=["completed"]) == [made]
    assert await found(task="bakery.ask") == [asked]
    assert await found(task="bakery.mix") == []
