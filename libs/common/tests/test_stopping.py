"""How an attempt is stopped: by its timeout, its deadline, or a person; softly first, then for good."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from carillon import NEVER, Retry, Run, Service, Tasks
from carillon.errors import Stopped, TransientError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running

pytestmark = pytest.mark.long(seconds=90)

SOON = timedelta(milliseconds=200)
LATER = timedelta(milliseconds=300)
AGAIN = Retry(attempts=2, base=timedelta(milliseconds=10))


class Scene:
    """What the code of the tasks saw, and what lets it end."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.returns = threading.Event()


def scene_service(settings: PlatformSettings, scene: Scene, **options: Any) -> Service:  # noqa: C901, PLR0915 - a list of tasks
    tasks = Tasks("scene")

    @tasks.task(timeout=SOON, grace=LATER, retry=NEVER)
    async def tidy_up() -> None:
        """Wait and clean up. Safe to run twice: it counts."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            scene.seen["tidied"] += 1

    @tasks.task(grace=LATER, retry=NEVER)
    async def wait_for_a_person(swallows: str = "") -> str:
        """Wait until cancelled. Safe to run twice: it counts."""
        scene.seen["entered"] += 1
        try:
            await scene.open.wait()
        except asyncio.CancelledError:
            scene.seen["told"] += 1
            if swallows == "raise":
                raise ValueError("cleaning up failed") from None
            if not swallows:
                raise
        return swallows or "opened"

    @tasks.task(timeout=SOON, grace=LATER, retry=AGAIN)
    async def never_listen(*, run: Run) -> str:
        """Swallow every cancellation. Safe to run twice: it counts."""
        scene.seen["entered"] += 1
        scene.seen["at once"] += 1
        assert scene.seen["at once"] == 1
        while not scene.open.is_set():
            with suppress(asyncio.CancelledError):
                await scene.open.wait()
        scene.seen["at once"] -= 1
        return f"attempt {run.attempt}"

    @tasks.task(timeout=SOON, retry=AGAIN)
    def hang(*, run: Run) -> str:
        """Block a thread. Safe to run twice: it counts."""
        scene.seen["entered"] += 1
        scene.seen["at once"] += 1
        assert scene.seen["at once"] == 1
        scene.returns.wait(20)
        scene.seen["stopped" if run.cancelled else "not stopped"] += 1
        scene.seen["at once"] -= 1
        return f"attempt {run.attempt}"

    @tasks.task(grace=timedelta(seconds=10), retry=NEVER)
    def ask_now_and_then(*, run: Run) -> None:
        """Ask whether to stop. Safe to run twice: it counts."""
        scene.seen["entered"] += 1
        try:
            while not scene.returns.wait(0.01):
                run.check()
        except Stopped:
            scene.seen["tidied"] += 1
            raise

    @tasks.task(retry=Retry(attempts=5, base=timedelta(minutes=10)))
    async def fail_before_the_deadline() -> None:
        """Raise. Safe to run twice: it only raises."""
        error = TransientError("not yet", retry_after=timedelta(minutes=20))
        raise error

    @tasks.task()
    async def add(a: int) -> int:
        """Add. Safe to run twice: it counts."""
        scene.seen[f"add {a}"] += 1
        return a

    @tasks.task()
    async def cancel_itself() -> None:
        """Await what is cancelled. Safe to run twice: it only raises."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    cancel_itself.retry = NEVER

    @tasks.task()
    async def submit_another(*, run: Run) -> str:
        """Submit. Safe to run twice: the key makes the other one run."""
        task = await add.kicker().with_labels(idempotency_key=str(run.id), delay=30, deadline=3000).kiq(1)
        return task.task_id

    @asynccontextmanager
    async def resources(_):
        yield {Scene: scene}

    return Service(name="scene", settings=settings, tasks=tasks, resources=resources, **options)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def new_run(task: str, args: str = "{}", **options: Any) -> NewRun:
    return NewRun(id=new_id(), domain="scene", task=f"scene.{task}", args=args, **options)


async def submitted(platform: Platform, task: str, args: str = "{}", **options: Any) -> NewRun:
    run = new_run(task, args, **options)
    await platform.submit(run)
    return run


async def ended(platform: Platform, run: NewRun, *, within: float = 15) -> Any:
    async def look():
        row = await platform.history.run(run.id)
        return row if row and row["finished_at"] else None

    return await eventually(look, within=within)


async def happens(scene: Scene, what: str, times: int = 1) -> None:
    async def look():
        return scene.seen[what] >= times

    await eventually(look)


def abandoned(service: Service, task: str) -> float | None:
    return service.metrics.registry.get_sample_value(
        "carillon_attempts_abandoned_total", {"task_name": f"scene.{task}"}
    )


async def test_a_coroutine_whose_time_is_up_may_clean_up(platform, scene):
    service = scene_service(platform.settings, scene)

    async with running(service, platform):
        end = await ended(platform, await submitted(platform, "tidy_up"))

    assert (end["state"], end["error"]["type"]) == ("failed", "TimeoutError")
    assert "ran longer than its timeout of 0.2 s" in end["error"]["message"]
    assert scene.seen["tidied"] == 1
    assert abandoned(service, "tidy_up") is None


async def test_what_swallows_its_end_is_given_up_and_keeps_its_slot_until_it_has_ended(platform, scene):
    service = scene_service(platform.settings, scene, concurrency=1)

    async with running(service, platform):
        stuck = await submitted(platform, "never_listen")

        async def retried():
            return (await platform.history.run(stuck.id))["state"] == "retrying"

        await eventually(retried)
        other = await submitted(platform, "add", '{"a": 1}')
        await asyncio.sleep(0.5)
        waited = scene.seen["add 1"] == 0
        scene.open.set()
        second, first = await ended(platform, other), await ended(platform, stuck)

    assert waited
    assert (second["state"], first["state"], first["result"]) == ("completed", "completed", "attempt 2")
    assert scene.seen["entered"] == 2
    assert abandoned(service, "never_listen") == 1
    tried = await platform.history.attempts(stuck.id)
    assert [(each["outcome"], (each["error"] or {}).get("type")) for each in tried] == [
        ("retried", "TimeoutError"), ("completed", None)
    ]  # fmt: skip


@pytest.mark.parametrize(("task", "opens"), [("hang", "returns"), ("never_listen", "open")])
async def test_a_retry_does_not_overlap_the_code_of_an_attempt_that_was_given_up(platform, scene, task, opens):
    async with running(scene_service(platform.settings, scene, concurrency=3), platform):
        run = await submitted(platform, task)

        async def put_off():
            return (await platform.history.run(run.id))["uncounted"] >= 1

        await eventually(put_off)
        entered = scene.seen["entered"]
        getattr(scene, opens).set()
        end = await ended(platform, run)

    assert entered == 1
    assert end["state"] == "completed"
    assert scene.seen["entered"] == 2
    outcomes = [each["outcome"] for each in await platform.history.attempts(run.id)]
    assert (outcomes[0], set(outcomes[1:-1]), outcomes[-1]) == ("retried", {"snoozed"}, "completed")


async def test_a_function_in_a_thread_is_told_that_its_time_is_up(platform, scene):
    service = scene_service(platform.settings, scene, concurrency=1)

    async with running(service, platform):
        run = await submitted(platform, "hang")
        await happens(scene, "entered")

        async def timed_out():
            return await platform.history.attempts(run.id)

        (first,) = await eventually(timed_out)
        still_inside = scene.seen["stopped"] == 0
        scene.returns.set()
        await ended(platform, run)

    assert still_inside
    assert first["error"]["type"] == "TimeoutError"
    assert (scene.seen["stopped"], scene.seen["not stopped"]) == (1, 1)
    assert abandoned(service, "hang") == 1


@pytest.mark.parametrize(
    ("task", "args", "tells"),
    [
        ("wait_for_a_person", "{}", "told"),
        ("wait_for_a_person", '{"swallows": "raise"}', "told"),
        ("ask_now_and_then", "{}", "tidied"),
    ],
)
async def test_a_run_that_executes_can_be_cancelled_and_its_code_cleans_up(
    platform, scene, receivers, task, args, tells
):
    service = scene_service(platform.settings, scene)

    async with running(service, platform):
        run = await submitted(platform, task, args)
        await happens(scene, "entered")
        told = [receivers[-1].cancel(run.id, "not needed any more") for _ in range(2)]
        end = await ended(platform, run)
        too_late = receivers[-1].cancel(run.id, "once more")

    assert (told, too_late) == ([True, True], False)
    assert scene.seen[tells] == 1
    assert end["state"] == "cancelled"
    assert end["error"] == {"type": "Cancelled", "message": "not needed any more"}
    assert abandoned(service, task) is None


async def test_a_result_is_kept_of_a_run_that_did_not_heed_its_cancellation(platform, scene, receivers):
    async with running(scene_service(platform.settings, scene), platform):
        run = await submitted(platform, "wait_for_a_person", '{"swallows": "done anyway"}')
        await happens(scene, "entered")
        receivers[-1].cancel(run.id, "not needed any more")
        end = await ended(platform, run)

    assert (end["state"], end["result"]) == ("completed", "done anyway")


async def test_a_run_that_heeds_nothing_is_cancelled_after_its_grace(platform, scene, receivers):
    service = scene_service(platform.settings, scene)

    async with running(service, platform):
        run = await submitted(platform, "never_listen")
        await happens(scene, "entered")
        receivers[-1].cancel(run.id, "not needed any more")
        end = await ended(platform, run)
        scene.open.set()

    assert end["error"] == {"type": "Cancelled", "message": "not needed any more"}
    assert end["state"] == "cancelled"
    assert abandoned(service, "never_listen") == 1


async def test_a_run_that_is_nowhere_near_cannot_be_cancelled_here(platform, scene, receivers):
    async with running(scene_service(platform.settings, scene), platform):
        answer = receivers[-1].cancel(new_id(), "whatever")

    assert answer is False


async def test_a_drain_hands_back_a_run_and_does_not_cancel_it(platform, scene, receivers, monkeypatch):
    monkeypatch.setattr(platform.settings, "carillon_drain_seconds", 0.1)

    async with running(scene_service(platform.settings, scene), platform):
        run = await submitted(platform, "wait_for_a_person")
        await happens(scene, "entered")
    row = await platform.history.run(run.id)

    assert scene.seen["told"] == 1
    assert (row["state"], row["uncounted"]) == ("retrying", 1)


async def test_code_that_was_cancelled_from_within_has_failed(platform, scene):
    async with running(scene_service(platform.settings, scene), platform):
        run = await submitted(platform, "cancel_itself")

        async def first_attempt():
            return (await platform.history.run(run.id))["error"]

        error = await eventually(first_attempt)

    assert "cancelled from within" in error["message"]


async def test_a_run_ends_at_its_deadline_whatever_its_timeout_is(platform, scene):
    async with running(scene_service(platform.settings, scene), platform):
        deadline = datetime.now(UTC) + timedelta(seconds=0.5)
        run = await submitted(platform, "wait_for_a_person", deadline_at=deadline)
        end = await ended(platform, run)

    assert (end["state"], end["attempt"]) == ("failed", 1)
    assert end["error"]["type"] == "DeadlineExceeded"
    assert (scene.seen["entered"], scene.seen["told"]) == (1, 1)


async def test_no_retry_is_scheduled_for_after_the_deadline(platform, scene):
    deadline = datetime.now(UTC) + timedelta(minutes=10)

    async with running(scene_service(platform.settings, scene), platform):
        run = await submitted(platform, "fail_before_the_deadline", deadline_at=deadline)
        end = await ended(platform, run)

    assert (end["state"], end["attempt"], end["error"]["type"]) == ("failed", 1, "DeadlineExceeded")
    assert "its next attempt would be due at" in end["error"]["message"]
    assert "TransientError: not yet" in end["error"]["traceback"]


async def test_what_a_task_submits_is_its_child_and_inherits_its_deadline(platform, scene):
    deadline = datetime.now(UTC) + timedelta(minutes=10)
    service = scene_service(platform.settings, scene)

    async with running(service, platform):
        parents = [await submitted(platform, "submit_another", deadline_at=each) for each in (deadline, None)]
        ends = [await ended(platform, parent) for parent in parents]
        children = [await platform.history.run(UUID(end["result"])) for end in ends]

    assert [child["parent_id"] for child in children] == [parent.id for parent in parents]
    assert children[0]["deadline_at"] == deadline
    assert timedelta(minutes=45) < children[1]["deadline_at"] - datetime.now(UTC) <= timedelta(seconds=3000)
