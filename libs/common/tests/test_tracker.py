"""The tracker: what the specification's quick start asks, from a program and from inside a task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import carillon
from carillon import Service, Tasks
from carillon.errors import InvalidArgumentsError, NotConnectedError, PermanentError
from carillon.testing import running

NOW = datetime.now(UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
tasks = Tasks("shop")
pytestmark = pytest.mark.real("it searches the history")


@tasks.task()
async def pack(order: int) -> int:
    """Pack an order.

    Safe to run twice: it only counts.
    """
    if order < 0:
        message = "no such order"
        raise PermanentError(message)
    return order


@tasks.task()
async def count_packed() -> int:
    """Count what was packed.

    Safe to run twice: it only reads.
    """
    return len(await carillon.get_tracker().find(task="shop.pack", states=("completed",)))


async def test_the_quick_start_of_the_specification_works(platform):
    service = Service(name="shop", settings=platform.settings, tasks=tasks)
    async with running(service, platform), carillon.connect(tasks, settings=platform.settings):
        kicked = [await pack.kiq(order) for order in (1, 2, -1)]
        ends = [await task.wait_result(timeout=10, check_interval=0.02) for task in kicked]

        tracker = carillon.get_tracker()
        recent = await tracker.get_recent_tasks(limit=100)
        failed = await tracker.get_tasks_by_status("failed")
        ranged = await tracker.get_tasks_in_range(
            start=datetime.now() - timedelta(hours=1),  # noqa: DTZ005 - as the specification writes it
            end=datetime.now(),  # noqa: DTZ005 - as the specification writes it
        )
        rest = await tracker.get_recent_tasks(after=recent[0])
        numbers = await tracker.get_statistics(task="shop.pack")
        details = await tracker.get_task(kicked[0].task_id)

    assert [end.is_err for end in ends] == [False, False, True]
    assert [task.task_id for task in recent] == [task.task_id for task in reversed(kicked)]
    assert [(task.task_name, task.status, task.error) for task in failed] == [("shop.pack", "failed", "no such order")]
    assert (ranged, rest) == (recent, recent[1:])
    assert recent[0].duration_seconds >= 0
    assert numbers.total.counts == {"completed": 2, "failed": 1}
    assert (details["args"], details["attempts"][0]["outcome"]) == ({"order": 1}, "completed")


async def test_a_task_asks_for_the_history_too(platform):
    service = Service(name="shop", settings=platform.settings, tasks=tasks)
    async with running(service, platform), carillon.connect(tasks, settings=platform.settings):
        await (await pack.kiq(1)).wait_result(timeout=10, check_interval=0.02)
        result = await (await count_packed.kiq()).wait_result(timeout=10, check_interval=0.02)

    assert result.return_value == 1


async def test_a_status_that_does_not_exist_is_named(platform):
    with pytest.raises(InvalidArgumentsError, match="there is no state 'broken'"):
        await carillon.get_tracker().get_tasks_by_status("broken")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda tracker: tracker.get_recent_tasks(limit=-1), "limit is -1; it is a whole number from 0 on"),
        (lambda tracker: tracker.get_recent_tasks(limit="ten"), "limit is 'ten'"),
        (lambda tracker: tracker.get_task("x"), "'x' is no id of a task; ids look like"),
        (lambda tracker: tracker.get_tasks_in_range(FIRST, NOW), "start is 0001-01-01 .*; name a moment"),
        (lambda tracker: tracker.get_tasks_in_range(NOW, LAST), "end is 9999-12-31"),
        (lambda tracker: tracker.get_statistics(start=FIRST), "start is 0001-01-01"),
    ],
)
async def test_what_cannot_be_asked_is_told_by_its_argument(platform, ask, told):
    with pytest.raises(InvalidArgumentsError, match=told):
        await ask(carillon.get_tracker())


def test_without_a_connection_it_says_what_to_do():
    with pytest.raises(NotConnectedError, match=r"carillon\.connect"):
        carillon.get_tracker()
