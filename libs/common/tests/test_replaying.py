"""Executing the code of a workflow again over its record: the same again, or a sentence that names the step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from bakery import Bakery, bakery_tasks

from carillon import RemoteTask, Tasks, Workflow
from carillon.contracts import BackupCompleted
from carillon.errors import ConfigurationError, DivergedError, OutsideWorkflowError, StuckError
from carillon.run import Run
from carillon.testing import Rehearsal
from carillon.worker.activations import OF_WORKFLOW
from carillon.workflows.activation import Activation
from carillon.workflows.records import History, NewStep, Step

BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)
RUN = Run(UUID(int=7), "bakery.test", "bakery")
TASKS, DECLARED = bakery_tasks()

Code = Callable[[Workflow], Coroutine[Any, Any, Any]]


def executed(code: Code, history: History = History()) -> Activation:  # noqa: B008 - it is frozen
    activation = Activation(history, BEGAN)
    flow = Workflow(activation, RUN, awaits=[BackupCompleted], priority=1, traceparent=None)
    activation.advance(lambda: code(flow))
    activation.leave()
    return activation


def recorded(steps: Sequence[NewStep], ended: Sequence[int] = (), **changed: Any) -> History:
    """The record of these steps, of which these have ended, in that order."""

    def step(new: NewStep) -> Step:
        same = {name: getattr(new, name) for name in ("seq", "kind", "name", "saw", "at", "digest")}
        run_id = None if new.run is None else new.run.id
        if new.seq not in ended:
            return Step(**same, run_id=run_id)
        at = BEGAN + timedelta(seconds=1 + ended.index(new.seq))
        return Step(**same, run_id=run_id, outcome="completed", result=f"result {new.seq}", ended_at=at)

    return History(steps=[step(new) for new in steps], told=len(ended), origin={"version": 1, "code": ""}, **changed)


def grown(code: Code, *ended: int) -> tuple[list[NewStep], Activation]:
    """Execute code, ending one step after the other, as a worker would."""
    steps: list[NewStep] = []
    activation = executed(code)
    steps += activation.new
    for number in range(len(ended)):
        activation = executed(code, recorded(steps, ended[: number + 1]))
        steps += activation.new
    return steps, activation


async def in_a_row(flow: Workflow) -> list[str]:
    return [await flow.step(DECLARED["mix"], "a"), await flow.step(DECLARED["bake"], "b")]


async def side_by_side(flow: Workflow) -> list[str]:
    first, second = flow.step(DECLARED["mix"], "a"), flow.step(DECLARED["mix"], "b")
    done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    winner = "a" if first in done else "b"
    return [await flow.step(DECLARED["bake"], winner), await first, await second]


def test_a_step_is_asked_for_once_and_its_result_is_there_again():
    steps, activation = grown(in_a_row, 1, 2)

    assert [(step.seq, step.name, list(step.saw)) for step in steps] == [(1, "bakery.mix", []), (2, "bakery.bake", [1])]
    assert activation.result() == ["result 1", "result 2"]


@pytest.mark.parametrize(("order", "winner"), [((1, 2, 3), "a"), ((2, 1, 3), "b")])
def test_who_was_first_stays_first(order, winner):
    steps, _ = grown(side_by_side, *order)

    again = executed(side_by_side, recorded(steps, order))

    assert steps[2].run is not None
    assert winner in steps[2].run.args
    assert again.result() == ["result 3", "result 1", "result 2"]
    assert again.new == []


def test_other_ends_than_those_that_were_told_come_after_what_they_led_to():
    steps, _ = grown(side_by_side, 2)
    late = recorded(steps, (2, 1, 3))
    early = replace(late, steps=[replace(step, ended_at=BEGAN) if step.seq == 1 else step for step in late.steps])

    assert executed(side_by_side, early).result() == ["result 3", "result 1", "result 2"]


def test_time_random_values_and_ids_are_the_same_each_time():
    seen = []

    async def code(flow: Workflow) -> None:
        seen.append([flow.now(), flow.random.random(), flow.uuid()])
        await flow.step(DECLARED["mix"], "a")
        seen.append([flow.now(), flow.random.random(), flow.uuid()])

    grown(code, 1)

    assert seen[0] == seen[1]
    assert seen[0][0] == BEGAN
    assert seen[2][0] == BEGAN + timedelta(seconds=1)
    assert seen[2][2].version == 4


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("another task", "step 1 was the task 'bakery.mix', and now it is the task 'bakery.bake'"),
        ("other arguments", "step 1 was the task 'bakery.mix', and now it has other arguments"),
        (
            "side by side",
            "step 2 was the task 'bakery.bake', and it came after the end of step 1, and now comes after no",
        ),
        ("fewer steps", "step 2 was the task 'bakery.bake', and now it ends before that"),
        ("a sleep between", "step 2 was the task 'bakery.bake', and now it is the sleep"),
    ],
)
def test_code_that_does_something_else_fails_naming_the_step(changed, told):
    steps, _ = grown(in_a_row, 1)

    async def code(flow: Workflow) -> Any:
        mix, bake = DECLARED["mix"], DECLARED["bake"]
        if changed == "another task":
            return await flow.step(bake, "a")
        if changed == "side by side":
            return await asyncio.gather(flow.step(mix, "a"), flow.step(bake, "b"))
        first = await flow.step(mix, "x" if changed == "other arguments" else "a")
        if changed == "fewer steps":
            return first
        await asyncio.sleep(5)
        return await flow.step(bake, "b")

    with pytest.raises(DivergedError, match=told):
        executed(code, recorded(steps, (1,))).result()


def test_code_cannot_hide_that_it_does_something_else():
    steps, _ = grown(in_a_row, 1)

    async def code(flow: Workflow) -> str:
        try:
            await flow.step(DECLARED["bake"], "a")
        except Exception:  # noqa: BLE001 - what nobody should do
            return "all is well"
        return "never"

    with pytest.raises(DivergedError):
        executed(code, recorded(steps, (1,))).result()


def test_code_that_waits_for_nothing_fails():
    async def code(_: Workflow) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError, match="waits for nothing that could happen"):
        executed(code).result()


@pytest.mark.parametrize("outside", ["thread", "socket", "subprocess"])
def test_code_that_reaches_outside_fails_saying_what_to_do(outside):
    async def code(_: Workflow) -> None:
        if outside == "thread":
            await asyncio.to_thread(print)
        elif outside == "socket":
            await asyncio.open_connection("127.0.0.1", 9)
        else:
            await asyncio.create_subprocess_exec("true")

    with pytest.raises(OutsideWorkflowError, match=r"do that in a task, and await it with `flow\.step"):
        executed(code).result()


def test_what_is_in_a_finally_is_not_done_when_a_workflow_waits():
    entered = []

    async def code(flow: Workflow) -> None:
        try:
            await flow.step(DECLARED["mix"], "a")
        finally:
            entered.append("entered")
            await flow.step(DECLARED["bake"], "b")
            entered.append("left")

    activation = executed(code)

    assert [step.name for step in activation.new] == ["bakery.mix"]
    assert "left" not in entered


def test_a_timeout_that_was_not_needed_is_let_go():
    async def code(flow: Workflow) -> str:
        async with asyncio.timeout(60):
            first = await flow.step(DECLARED["mix"], "a")
        return first + await flow.step(DECLARED["bake"], "b")

    steps, activation = grown(code, 2)

    assert [(step.kind, step.seq) for step in steps] == [("sleep", 1), ("task", 2), ("task", 3)]
    assert activation.voided == [1]


@pytest.fixture
async def stage():
    tasks, declared = bakery_tasks()
    async with Rehearsal(tasks, resources={Bakery: Bakery()}) as rehearsal:
        yield rehearsal, declared["ask"]


async def test_a_run_goes_on_in_code_that_asks_for_the_same_steps_and_that_is_noted(stage):
    rehearsal, workflow = stage
    task = await workflow.kiq("Shall we?")
    await rehearsal.settle()

    async def ask(question: str, *, flow: Workflow) -> dict[str, Any]:
        decision = await flow.approval(question, timeout=timedelta(days=1))
        await flow.sleep(timedelta(hours=1))
        return {"changed": decision.approved}

    workflow.original_func = ask
    vars(workflow).pop("code", None)
    await rehearsal.decide(rehearsal.decisions()[0], approved=True)
    await rehearsal.settle()
    seen = await rehearsal.platform.history.workflow(UUID(task.task_id))
    await rehearsal.advance(timedelta(hours=1))

    assert [change["step"] for change in seen.code_changes] == [2]
    assert rehearsal.run(task).result == {"changed": True}


async def test_a_run_stays_with_the_version_that_it_began_with(stage):
    rehearsal, workflow = stage
    old = workflow.original_func
    task = await workflow.kiq("Shall we?")
    await rehearsal.settle()

    async def ask(question: str, *, flow: Workflow) -> dict[str, Any]:
        await flow.step(DECLARED["mix"], question)
        return {"never": True}

    workflow.version, workflow.original_func = 2, ask
    workflow.earlier(version=1)(old)
    await rehearsal.decide(rehearsal.decisions()[0], approved=True)
    await rehearsal.settle()

    assert rehearsal.run(task).result == {"approved": True, "by": "rehearsal", "reason": None}


async def test_a_run_whose_version_is_gone_fails_saying_what_to_keep(stage):
    rehearsal, workflow = stage
    task = await workflow.kiq("Shall we?")
    await rehearsal.settle()

    workflow.version = 2
    await rehearsal.decide(rehearsal.decisions()[0], approved=True)
    await rehearsal.settle()

    run = rehearsal.run(task)
    assert (run.state, run.error["type"]) == ("failed", "DivergedError")
    assert "keep that beside version 2 with @ask.earlier(version=1)" in run.error["message"]


async def test_a_run_of_a_version_that_a_worker_does_not_know_yet_waits_for_one_that_does(stage):
    rehearsal, workflow = stage
    workflow.version = 2
    task = await workflow.kiq("Shall we?")
    await rehearsal.settle()
    workflow.version = 1
    await rehearsal.decide(rehearsal.decisions()[0], approved=True)
    await rehearsal.settle()
    assert rehearsal.run(task).state == "queued"

    workflow.version = 2
    await rehearsal.advance(timedelta(seconds=5))

    assert rehearsal.run(task).result["approved"] is True


async def test_a_workflow_submits_nothing_by_itself(stage):
    rehearsal, workflow = stage

    async def ask(question: str, *, flow: Workflow) -> str:
        await workflow.kiq(question)
        return "never"

    workflow.original_func = ask
    task = await workflow.kiq("Shall we?")
    await rehearsal.settle()

    assert r"use flow.step(bakery.ask, ...)" in rehearsal.run(task).error["message"]


def test_a_workflow_is_declared_as_one():
    tasks = Tasks("bakery")

    with pytest.raises(ConfigurationError, match="it must be async"):

        @tasks.workflow()
        def plain(*, flow: Workflow) -> None:
            """Not async."""

    with pytest.raises(ConfigurationError, match="one keyword-only parameter"):

        @tasks.workflow()
        async def without() -> None:
            """Without its workflow."""

    @tasks.workflow()
    async def first(*, flow: Workflow) -> None:
        """The first version."""

    with pytest.raises(ConfigurationError, match="cannot have an earlier 1"):
        first.earlier(version=1)


def test_code_that_exits_ends_itself_and_not_its_worker():
    async def code(_: Workflow) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        executed(code).result()


def test_a_task_of_another_domain_is_mapped_over_its_arguments_by_name():
    async def code(flow: Workflow) -> None:
        await flow.map(RemoteTask("mill.grind"), [{"what": "rye"}, {"what": "oats"}])

    args = [step.run.args for step in executed(code).new if step.run is not None]

    assert args == ['{"what":"rye"}', '{"what":"oats"}']


def test_what_waits_goes_on_where_it_is_when_it_is_told():
    activation = Activation(History(), BEGAN)
    flow = Workflow(activation, RUN, awaits=[], priority=1, traceparent=None)
    activation.advance(lambda: in_a_row(flow))
    first = activation.new
    activation.resume(recorded(first, (1,)))
    second = activation.new
    activation.resume(replace(recorded(second, (2,)), told=2))

    assert [(step.seq, list(step.saw)) for step in (*first, *second)] == [(1, []), (2, [1])]
    assert activation.result() == ["result 1", "result 2"]


async def test_a_worker_keeps_no_more_that_waits_than_it_has_room_for(stage):
    rehearsal, workflow = stage
    (receiver,) = rehearsal._receivers
    activations = receiver._workflows
    activations._most = 3 * (OF_WORKFLOW + 2)

    for number in range(5):
        await workflow.kiq(f"Shall we, {number}?")
    await rehearsal.settle()
    kept = len(activations._waiting)
    for asked in rehearsal.decisions():
        await rehearsal.decide(asked, approved=True)
    await rehearsal.settle()

    assert kept == 3
    assert {run.state for run in rehearsal.runs(workflow)} == {"completed"}
    assert (len(activations._waiting), activations._kept) == (0, 0)
