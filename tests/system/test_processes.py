"""What becomes of accepted runs when the processes that submit and run them are killed, stopped and frozen."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from redis.asyncio import Redis
from taskiq import AsyncTaskiqTask

from carillon import connect
from carillon.embedded.folder import StateFolder
from carillon.embedded.valkey import Valkey
from carillon.ids import new_id
from carillon.ledger.history import Search
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually

pytestmark = pytest.mark.long(seconds=140)

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
#: What follows the broker in the README's command.
TASKIQ_OPTIONS = re.findall(r"`taskiq worker \S+ ([^`]*)`", README)[0].split()


async def submit(platform: Platform, task: str, **arguments: object) -> UUID:
    args = orjson.dumps(arguments).decode()
    run = NewRun(id=new_id(), domain="workshop", task=f"workshop.{task}", args=args)
    return (await platform.submit(run)).id


async def rows(platform: Platform, query: str, *arguments: object) -> list[Any]:
    return await platform.ledger.pool.fetch(query, *arguments)


async def ended(platform: Platform, run: UUID, *, within: float = 30) -> Any:
    async def look() -> Any:
        row = await platform.history.run(run)
        return row if row and row["finished_at"] else None

    return await eventually(look, within=within)


async def all_completed(platform: Platform, runs: list[UUID], *, within: float = 30) -> None:
    async def look() -> bool:
        query = "select count(*) from carillon.runs where id = any($1::uuid[]) and state = 'completed'"
        return await platform.ledger.pool.fetchval(query, runs) == len(runs)

    await eventually(look, within=within)


async def outcomes(platform: Platform, run: UUID) -> list[str]:
    return [attempt["outcome"] for attempt in await platform.history.attempts(run)]


async def entered(platform: Platform, run: UUID, attempt: int = 1) -> int:
    """The process that works on a run, as soon as one does."""

    async def look() -> Any:
        return await rows(platform, "select worker from entries where run_id = $1 and attempt = $2", run, attempt)

    return (await eventually(look, within=30))[0]["worker"]


async def effects(platform: Platform, run: UUID) -> int:
    return len(await rows(platform, "select 1 from effects where run_id = $1", run))


def open_door(door: Path, attempt: int) -> None:
    Path(f"{door}.{attempt}").touch()


async def test_a_run_whose_worker_is_killed_is_rescued_by_another(platform, processes, tmp_path):
    first = await processes.worker()
    run = await submit(platform, "make_slowly", door=str(tmp_path / "door"))
    await entered(platform, run)
    os.kill(first.pid, signal.SIGKILL)
    open_door(tmp_path / "door", 2)
    second = await processes.worker()
    row = await ended(platform, run)

    assert (row["state"], row["attempt"], row["result"]) == ("completed", 2, f"made by {second.pid}")
    assert await outcomes(platform, run) == ["lost", "completed"]
    assert await effects(platform, run) == 1
    assert await processes.end(first) == -signal.SIGKILL


async def test_a_run_whose_submitter_died_right_after_the_commit_runs_anyway(platform, processes):
    worker = await processes.worker()
    doomed = processes.start("workshop.py", "7")
    code = await processes.end(doomed)
    (submitted,) = await platform.history.search(Search(task="workshop.make"))
    row = await ended(platform, submitted["id"])

    assert code == 137, processes.said(doomed)
    assert (row["state"], row["result"]) == ("completed", {"number": 7})
    assert await effects(platform, row["id"]) == 1
    assert worker.poll() is None


async def test_a_worker_that_is_told_to_stop_ends_what_it_has_begun_and_exits_cleanly(platform, processes, tmp_path):
    worker = await processes.worker()
    run = await submit(platform, "make_slowly", door=str(tmp_path / "door"))
    await entered(platform, run)
    worker.terminate()
    await eventually(lambda: has_said(processes, worker, "worker draining"))
    late = await submit(platform, "make", number=1)
    open_door(tmp_path / "door", 1)
    code = await processes.end(worker)
    row = await platform.history.run(run)

    assert (code, row["state"], row["attempt"]) == (0, "completed", 1), processes.said(worker)
    assert (await platform.history.run(late))["state"] == "queued"
    assert await platform.history.live_workers() == []


async def has_said(processes: Any, process: Any, words: str) -> bool:
    return words in processes.said(process)


async def test_a_worker_that_was_frozen_beyond_its_lease_cannot_end_what_others_took_over(
    platform, processes, tmp_path
):
    frozen = await processes.worker()
    run = await submit(platform, "make_slowly", door=str(tmp_path / "door"))
    await entered(platform, run)
    os.kill(frozen.pid, signal.SIGSTOP)
    other = await processes.worker()
    taken_over_by = await entered(platform, run, 2)
    open_door(tmp_path / "door", 1)
    os.kill(frozen.pid, signal.SIGCONT)
    await eventually(lambda: effects(platform, run))
    frozen.terminate()
    code = await processes.end(frozen)
    meanwhile = await platform.history.run(run)
    open_door(tmp_path / "door", 2)
    row = await ended(platform, run)

    assert (code, taken_over_by) == (0, other.pid), processes.said(frozen)
    assert (meanwhile["state"], meanwhile["attempt"], meanwhile["result"]) == ("running", 2, None)
    assert (row["state"], row["attempt"], row["result"]) == ("completed", 2, f"made by {other.pid}")
    assert await outcomes(platform, run) == ["lost", "completed"]
    assert await effects(platform, run) == 1


async def test_two_workers_share_a_queue_and_run_everything_once(platform, processes):
    pair = await asyncio.gather(processes.worker(), processes.worker())
    runs = await asyncio.gather(*(submit(platform, "make", number=number) for number in range(200)))
    await all_completed(platform, runs)

    by_worker = await rows(platform, "select worker, count(*) as runs from entries group by worker")
    assert {row["worker"] for row in by_worker} == {worker.pid for worker in pair}
    assert sum(row["runs"] for row in by_worker) == len(await rows(platform, "select 1 from effects")) == 200


async def test_the_taskiq_command_runs_the_domain_and_stops_without_losing_a_run(platform, processes, tmp_path):
    command = processes.start("-m", "taskiq", "worker", "workshop:broker", *TASKIQ_OPTIONS)
    await eventually(lambda: enrolled(platform, 2), within=40)
    runs = await asyncio.gather(*(submit(platform, "make", number=number) for number in range(20)))
    await all_completed(platform, runs)
    slow = await submit(platform, "make_slowly", door=str(tmp_path / "door"))
    await entered(platform, slow)
    command.terminate()
    await eventually(lambda: has_said(processes, command, "worker draining"))
    open_door(tmp_path / "door", 1)
    code = await processes.end(command)
    row = await platform.history.run(slow)

    assert (code, row["state"], row["attempt"]) == (0, "completed", 1), processes.said(command)
    assert len(await rows(platform, "select 1 from effects")) == 21
    assert await platform.history.live_workers() == []


def test_taskiq_is_told_to_wait_longer_than_a_worker_drains():
    patience = float(TASKIQ_OPTIONS[TASKIQ_OPTIONS.index("--shutdown-timeout") + 1])
    assert patience > PlatformSettings().carillon_drain_seconds


async def test_the_taskiq_command_hands_back_what_outlasts_its_patience_and_another_worker_ends_it(
    platform, processes, tmp_path
):
    command = processes.start("-m", "taskiq", "worker", "workshop:broker", "--workers", "1", "--shutdown-timeout", "1")
    run = await submit(platform, "make_slowly", door=str(tmp_path / "door"))
    await entered(platform, run)
    command.terminate()
    code = await processes.end(command)
    workers_left = await platform.history.live_workers()
    handed_back = await platform.history.run(run)
    open_door(tmp_path / "door", 2)
    other = await processes.worker()
    row = await ended(platform, run)

    assert (code, handed_back["state"], workers_left) == (0, "retrying", []), processes.said(command)
    assert (row["state"], row["result"]) == ("completed", f"made by {other.pid}")
    assert await outcomes(platform, run) == ["handed_back", "completed"]
    assert await effects(platform, run) == 1


async def enrolled(platform: Platform, count: int) -> bool:
    return len(await platform.history.live_workers()) == count


async def test_a_run_that_kills_its_workers_fails_at_the_third_and_others_go_on(platform, processes):
    poison = await submit(platform, "explode")
    others = []
    for _ in range(3):
        others.append(await submit(platform, "make", number=len(others)))
        victim = processes.start("workshop.py")
        assert await processes.end(victim, within=40) == 86, processes.said(victim)
    await processes.worker()
    row = await ended(platform, poison)
    await all_completed(platform, [*others, await submit(platform, "make", number=9)])

    assert (row["state"], row["lost"], row["error"]["type"]) == ("failed", 3, "WorkerLost")
    assert await outcomes(platform, poison) == ["lost", "lost", "lost"]
    assert len(await rows(platform, "select 1 from entries where run_id = $1", poison)) == 3


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_results_come_from_redis_and_without_redis_from_the_ledger(
    platform, processes, settings, tmp_path, workshop
):
    with StateFolder(tmp_path / "valkey") as folder:
        valkey = Valkey(folder)
        await valkey.start()
        cached = {"task_result_backend": "redis", "redis_url": valkey.url}
        chosen = type(settings)(**settings.model_dump() | cached)
        await processes.worker(TASK_RESULT_BACKEND="redis", REDIS_URL=valkey.url)
        async with connect(workshop.tasks, settings=chosen):
            with_redis = await workshop.make.kiq(1)
            first = await with_redis.wait_result(timeout=15, check_interval=0.05)
            # The ledger has the end first, and whoever waits may hear it from there.
            keys = await eventually(lambda: keys_of(valkey.url))
            await rows(platform, "update carillon.runs set result = '\"from the ledger\"'")
            again = await with_redis.get_result()
            await valkey.stop()
            without_redis = await workshop.make.kiq(2)
            second = await without_redis.wait_result(timeout=15, check_interval=0.05)
            from_the_ledger = await with_redis.get_result()

    assert [first.return_value, again.return_value, second.return_value] == [
        {"number": 1},
        {"number": 1},
        {"number": 2},
    ]
    assert keys == [f"taskiq:result:{with_redis.task_id}"]
    assert from_the_ledger.return_value == "from the ledger"
    assert isinstance(without_redis, AsyncTaskiqTask)


async def keys_of(url: str) -> list[str]:
    client = Redis.from_url(url, decode_responses=True)
    try:
        return await client.keys("*")
    finally:
        await client.aclose()
