"""Sagas: what may have happened is undone, in reverse order, and what cannot be undone waits for a person."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from bakery import Bakery, bakery_tasks

from carillon.ledger.audit import Actor
from carillon.testing import Rehearsal
from carillon.testing.crashes import Scenario
from carillon.testing.sagas import NoSagaError, Way, check

pytestmark = pytest.mark.long(seconds=120)


@pytest.fixture
async def bakery():
    return Bakery()


@pytest.fixture
async def stage(bakery):
    tasks, declared = bakery_tasks()
    async with Rehearsal(tasks, resources={Bakery: bakery}) as rehearsal:
        yield rehearsal, declared


#: Declared once: what is asked of hundreds of trials is not how tasks are declared.
TASKS, DECLARED = bakery_tasks()


def scenario_of(workflow: str) -> Scenario:
    bakery = Bakery()
    return Scenario(
        tasks=[TASKS],
        start=lambda: DECLARED[workflow].kiq("17"),
        effects=lambda: sorted(bakery.holds),
        resources={Bakery: bakery},
    )


async def test_steps_are_undone_in_reverse_order_and_the_result_tells(stage, bakery):
    rehearsal, declared = stage
    bakery.fails["ship"] = -1

    task = await declared["deliver"].kiq("17")
    await rehearsal.advance(timedelta(seconds=5))
    run = rehearsal.run(task)

    assert run.result == {
        "status": "undone",
        "why": "TransientError",
        "compensations": ["bakery.call_back", "bakery.refund", "bakery.release"],
    }
    assert bakery.holds == set()
    seen = await rehearsal.platform.history.workflow(UUID(task.task_id))
    assert seen is not None
    assert [(step.name, step.undoes) for step in seen.steps[3:]] == [
        ("bakery.call_back", 3),
        ("bakery.refund", 2),
        ("bakery.release", 1),
    ]


async def test_a_compensation_that_fails_for_good_waits_for_a_person_and_is_tried_again_alone(stage, bakery):
    rehearsal, declared = stage
    bakery.fails["ship"], bakery.fails["refund"] = -1, 3
    task = await declared["deliver"].kiq("17")
    await rehearsal.advance(timedelta(seconds=5))
    assert rehearsal.run(task).state == "pending"
    assert bakery.holds == {"reserved 17", "charged 17"}
    (repair,) = rehearsal.decisions()
    assert repair.kind == "repair"
    assert repair.name.startswith("bakery.refund, which takes back bakery.charge, failed. Try again?")

    await rehearsal.decide(repair, approved=True)
    await rehearsal.advance(timedelta(seconds=5))

    assert rehearsal.run(task).result["status"] == "undone"
    assert bakery.done == ["reserve", "charge", "call back", "refund", "release"]
    assert bakery.holds == set()


async def test_a_person_may_say_that_it_was_done_by_hand(stage, bakery):
    rehearsal, declared = stage
    bakery.fails["ship"], bakery.fails["refund"] = -1, -1
    task = await declared["deliver"].kiq("17")
    await rehearsal.advance(timedelta(seconds=5))

    await rehearsal.decide(rehearsal.decisions()[0], approved=False)
    await rehearsal.advance(timedelta(seconds=5))

    assert rehearsal.run(task).result["status"] == "undone"
    assert bakery.holds == {"charged 17"}


async def test_beyond_the_point_of_no_return_nothing_is_undone_and_a_person_is_asked(stage, bakery):
    rehearsal, declared = stage
    bakery.fails["ship"] = 3
    task = await declared["deliver_surely"].kiq("17")
    await rehearsal.advance(timedelta(seconds=5))
    assert bakery.holds == {"reserved 17"}

    await rehearsal.decide(rehearsal.decisions()[0], approved=True)
    await rehearsal.advance(timedelta(seconds=5))

    assert rehearsal.run(task).result == "completed"
    assert bakery.holds == {"reserved 17", "shipped 17"}


async def test_cancelling_a_saga_undoes_it(stage, bakery):
    rehearsal, declared = stage
    await rehearsal.platform.ledger.steering.pause("bakery.ship", Actor("ada", "a test"))
    task = await declared["deliver"].kiq("17")
    await rehearsal.advance(timedelta(seconds=5))
    assert bakery.holds == {"reserved 17", "charged 17"}

    await rehearsal.cancel(task, "the customer is gone")
    await rehearsal.advance(timedelta(seconds=5))

    run = rehearsal.run(task)
    assert (run.state, run.error["message"]) == ("cancelled", "cancelled by rehearsal: the customer is gone")
    assert bakery.holds == set()
    assert "call back" not in bakery.done


async def test_a_saga_whose_deadline_has_passed_is_undone(stage, bakery):
    rehearsal, declared = stage
    await rehearsal.platform.ledger.steering.pause("bakery.ship", Actor("ada", "a test"))
    task = await declared["deliver"].options(deadline=timedelta(hours=1)).kiq("17")

    await rehearsal.advance(timedelta(hours=2))

    run = rehearsal.run(task)
    assert (run.state, run.error["type"]) == ("failed", "DeadlineExceeded")
    assert bakery.holds == set()


async def test_the_check_of_a_sound_saga_finds_nothing():
    checked = await check(lambda: scenario_of("deliver"))

    assert checked.nothing == []
    assert checked.all == ["charged 17", "reserved 17", "shipped 17"]
    assert {(case.step, case.way) for case in checked.cases} == {
        (f"bakery.{step}", way) for step in ("reserve", "charge", "ship") for way in Way
    }
    assert checked.violations == []
    assert checked.trials > 200


async def test_the_check_names_what_a_saga_forgets():
    checked = await check(lambda: scenario_of("deliver_badly"))

    assert checked.violations
    assert all(trial.end.effects == ["charged 17"] for trial in checked.violations)
    assert {case.step for case in checked.cases if case.violations} == {"bakery.charge", "bakery.ship"}


async def test_what_fails_undisturbed_cannot_be_checked():
    def scenario() -> Scenario:
        return Scenario(
            tasks=[TASKS], start=lambda: DECLARED["refuse"].kiq("no"), effects=list, resources={Bakery: Bakery()}
        )

    with pytest.raises(NoSagaError, match="undisturbed it ends failed"):
        await check(scenario)
