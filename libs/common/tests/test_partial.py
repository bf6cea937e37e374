"""Runs that end `partial`: what whoever waits, counts or looks gets to see of them, on both transports and the twin."""

from __future__ import annotations

import asyncio
from typing import Any

import killable
import pytest
from killable import press_what_is_there
from shop import OrderPacked

from carillon import After, Partial, Run, Service, Tasks, get_tracker
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.testing import InProcess, Rehearsal, eventually, running
from carillon.worker.results import results_of

ONE_BOUNCED = "1 of 10 bounced"


def post_tasks() -> Tasks:
    tasks = Tasks("post")

    @tasks.task()
    async def send(value: Any) -> Partial[Any]:
        """Send nine of ten. Safe to run twice: it only returns."""
        return Partial(value, reason=ONE_BOUNCED)

    @tasks.task()
    async def tell(order: str) -> Partial[OrderPacked]:
        """Say an event of a part. Safe to run twice: an event is said once."""
        return Partial(OrderPacked(order=order), reason=ONE_BOUNCED)

    @tasks.task()
    async def keep_a_socket(*, run: Run) -> Partial[object]:
        """Return what cannot be kept. Safe to run twice: nothing is kept."""
        return Partial(object(), reason=str(run.id))

    return tasks


async def submitted(platform: Platform, task: str, args: str, **options: Any) -> NewRun:
    run = NewRun(id=new_id(), domain=task.partition(".")[0], task=task, args=args, **options)
    await platform.submit(run)
    return run


async def ended(platform: Platform, run: NewRun, *, within: float = 15) -> Any:
    async def look() -> Any:
        row = await platform.history.run(run.id)
        return row if row["finished_at"] else None

    return await eventually(look, within=within)


async def test_a_part_is_the_result_of_its_run_and_no_error(platform):
    service = Service(name="post", settings=platform.settings, tasks=post_tasks())
    async with running(service, platform):
        run = await submitted(platform, "post.send", '{"value": {"sent": 9}}')
        row = await ended(platform, run)
        found = await results_of(platform).get_result(str(run.id))
        changes = [change.what for change in await platform.history.changes(run.id)]

    assert (row["state"], row["result"], row["error"], row["attempt"]) == ("partial", {"sent": 9}, None, 1)
    assert ONE_BOUNCED in row["log"]
    assert (found.is_err, found.return_value) == (False, {"sent": 9})
    assert changes[-1] == "ended partial"
    assert service.metrics.registry.get_sample_value(
        "taskiq_tasks_total", {"task_name": "post.send", "status": "partial"}
    ) == 1  # fmt: skip


async def test_a_part_says_its_event_and_whoever_needs_it_goes_on(platform):
    service = Service(name="post", settings=platform.settings, tasks=post_tasks())
    async with running(service, platform):
        told = await submitted(platform, "post.tell", '{"order": "o1"}')
        after = await submitted(platform, "post.send", '{"value": 1}', after=After(runs=(told.id,)))
        next_ = await ended(platform, after)
        said = await platform.history.said_by(told.id)

    assert next_["state"] == "partial"
    assert [event["data"] for event in said] == [{"order": "o1"}]


async def test_a_part_that_cannot_be_kept_is_a_failure(platform):
    service = Service(name="post", settings=platform.settings, tasks=post_tasks())
    async with running(service, platform):
        row = await ended(platform, await submitted(platform, "post.keep_a_socket", "{}"))

    assert (row["state"], row["error"]["type"]) == ("failed", "PermanentError")


@pytest.mark.parametrize("transport", ["postgres"])
async def test_a_child_process_ends_its_run_partial_as_well(platform):
    service = Service(name="press", settings=platform.settings, tasks=killable.tasks)
    async with running(service, platform):
        row = await ended(
            platform, await submitted(platform, press_what_is_there.task_name, '{"sheets": 3}'), within=60
        )

    assert (row["state"], row["result"], row["error"]) == ("partial", 2, None)
    assert "one sheet is missing" in row["log"]


@pytest.mark.parametrize("transport", ["postgres"])
async def test_the_tracker_finds_what_is_partial(platform):
    service = Service(name="post", settings=platform.settings, tasks=post_tasks())
    async with running(service, platform):
        run = await submitted(platform, "post.send", '{"value": 1}')
        await ended(platform, run)
        tracker = get_tracker()
        found = await tracker.get_tasks_by_status("partial")
        counts = (await tracker.get_statistics()).total.counts

    assert [each.task_id for each in found] == [str(run.id)]
    assert counts["partial"] == 1


async def test_a_rehearsal_and_a_single_attempt_show_the_part():
    tasks = post_tasks()
    send, tell = tasks.declared["post.send"], tasks.declared["post.tell"]

    alone = InProcess(tasks, {})
    returned = await alone.run(tell, order="o1")
    async with Rehearsal(tasks) as rehearsal:
        task = await send.kiq({"sent": 9})
        await rehearsal.settle()
        result = await asyncio.wait_for(task.wait_result(), 10)
        run = rehearsal.run(task)

    assert returned == Partial(OrderPacked(order="o1"), reason=ONE_BOUNCED)
    assert alone.said == [OrderPacked(order="o1")]
    assert (run.state, run.result, run.error) == ("partial", {"sent": 9}, None)
    assert (result.is_err, result.return_value) == (False, {"sent": 9})
