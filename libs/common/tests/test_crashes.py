"""Workflows whose worker dies: at every moment, one after the other, the end is the same."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from bakery import Bakery, OrderPaid, bakery_tasks

from carillon.testing import Rehearsal
from carillon.testing.crashes import Scenario, every_crash

pytestmark = pytest.mark.long(seconds=60)


#: Declared once: what is asked of hundreds of trials is not how tasks are declared.
TASKS, DECLARED = bakery_tasks()


def scenario(workflow: str, *, once: bool = False, **arguments: Any) -> Scenario:
    bakery = Bakery()

    async def meanwhile(rehearsal: Rehearsal) -> None:
        await rehearsal.hear(OrderPaid(order="17", cents=5))
        await rehearsal.advance(timedelta(days=2))

    def effects() -> Any:
        return sorted(set(bakery.done))

    return Scenario(
        tasks=[TASKS],
        start=lambda: DECLARED[workflow].kiq(**arguments),
        effects=(lambda: dict(Counter(bakery.done))) if once else effects,
        resources={Bakery: bakery},
        meanwhile=meanwhile,
    )


@pytest.mark.parametrize(
    ("workflow", "arguments"),
    [
        ("make", {"what": "rye"}),
        ("make_all", {"whats": ["a", "b", "c"], "concurrency": 2}),
        ("make_tomorrow", {"what": "rye"}),
        ("sell", {"order": "17"}),
        ("stumble", {"why": "no flour"}),
        ("make_by_others", {"what": "rye"}),
    ],
)
async def test_a_workflow_ends_the_same_wherever_its_worker_dies(workflow, arguments):
    undisturbed, crashed = await every_crash(lambda: scenario(workflow, **arguments))

    assert undisturbed.end.state == "completed"
    assert len(crashed) > 4
    assert {trial.died: trial.end for trial in crashed if trial.end != undisturbed.end} == {}
    assert all(trial.died is not None for trial in crashed)


async def test_what_is_recorded_is_not_executed_again():
    undisturbed, crashed = await every_crash(lambda: scenario("make", once=True, what="rye"))

    again = {trial.died: trial.end.effects for trial in crashed if trial.end.effects != undisturbed.end.effects}

    assert again == {
        "bakery.mix has ended, and that is not recorded": {"mix rye": 2, "bake rye dough": 1},
        "bakery.bake has ended, and that is not recorded": {"mix rye": 1, "bake rye dough": 2},
    }
