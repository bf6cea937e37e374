"""Results: large ones in storage, fresh ones in Redis, all of them where the ledger says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import obstore
import pytest
from obstore.store import MemoryStore
from pydantic import BaseModel, SecretStr
from redis.asyncio import Redis
from taskiq.exceptions import ResultGetError

import carillon
from carillon import Retry, Service, Tasks, stored_results
from carillon.embedded.folder import StateFolder
from carillon.embedded.valkey import Valkey
from carillon.errors import TransientError
from carillon.ids import new_id
from carillon.platform import Platform
from carillon.stored_results import ResultGoneError, StoredResults, stored_in
from carillon.testing import eventually, running
from carillon.worker import execution, redis_results, sweeper

LARGE = 300_000
WEEK = timedelta(days=7)

tasks = Tasks("press")


@tasks.task(retry=Retry(attempts=50, base=timedelta(milliseconds=50), cap=timedelta(milliseconds=200)))
async def press(size: int) -> dict[str, Any]:
    """Return something large. Safe to run twice: it only returns."""
    return {"text": "é" * (size // 2)}


class Page(BaseModel):
    number: int
    at: datetime


@tasks.task()
async def describe() -> dict[str, Any]:
    """Return what JSON has no word for. Safe to run twice: it only returns."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    return {"at": noon, "page": Page(number=3, at=noon), "by number": {1: "one"}, "id": UUID(int=7)}


def service(platform: Platform) -> Service:
    return Service(name="press", settings=platform.settings, tasks=tasks)


async def kicked(platform: Platform, size: int) -> Any:
    service(platform)._broker(platform)
    return await press.kiq(size)


async def row_of(platform: Platform, task: Any) -> Any:
    return await platform.history.run(UUID(task.task_id))


async def test_a_large_result_lies_in_storage_and_is_read_like_any_other(platform):
    async with running(service(platform), platform):
        large, small = [await kicked(platform, size) for size in (LARGE, 10)]
        results = [await task.wait_result(timeout=10, check_interval=0.02) for task in (large, small)]
        tracked = await carillon.get_tracker().get_task(large.task_id)
    row = await row_of(platform, large)
    stored = stored_in(row["id"], row["result"])

    assert [len(result.return_value["text"]) for result in results] == [LARGE // 2, 5]
    assert len(tracked["result"]["text"]) == LARGE // 2
    assert stored.key == f"results/{datetime.now(UTC):%F}/{row['id']}-1.json"
    assert stored.bytes == LARGE + len('{"text":""}')
    assert (await row_of(platform, small))["result"] == {"text": "ééééé"}


async def test_a_result_beyond_every_limit_fails_the_run_and_says_what_to_do(platform, monkeypatch):
    monkeypatch.setattr(execution, "MOST_RESULT_BYTES", LARGE)

    async with running(service(platform), platform):
        result = await (await kicked(platform, 2 * LARGE)).wait_result(timeout=10, check_interval=0.02)

    assert result.is_err
    assert "put it into storage as a file, and return its key" in str(result.error)


@pytest.mark.real("storage is a folder")
async def test_a_run_whose_storage_is_away_is_tried_again_and_completes(platform, monkeypatch):
    monkeypatch.setattr(stored_results, "PAUSE_SECONDS", 0.01)
    take_away(platform)

    async with running(service(platform), platform):
        task = await kicked(platform, LARGE)
        run = UUID(task.task_id)
        await eventually(lambda: has_failed_once(platform, run))
        give_back(platform)
        result = await task.wait_result(timeout=15, check_interval=0.02)

    first, *_, last = await platform.history.attempts(run)
    assert (first["outcome"], first["error"]["type"]) == ("retried", "TransientError")
    assert "storage did not take the result of 300011 bytes" in first["error"]["message"]
    assert "check STORAGE_URL" in first["error"]["message"]
    assert (last["outcome"], len(result.return_value["text"])) == ("completed", LARGE // 2)


def take_away(platform: Platform) -> None:
    """A file where the folder should be."""
    folder = Path(platform.settings.storage_url)
    shutil.rmtree(folder)
    folder.write_text("")


def give_back(platform: Platform) -> None:
    Path(platform.settings.storage_url).unlink()


async def has_failed_once(platform: Platform, run: UUID) -> bool:
    return len(await platform.history.attempts(run)) > 0


@pytest.mark.real("storage is a folder")
async def test_a_result_that_is_gone_is_said_to_be(platform):
    async with running(service(platform), platform):
        task = await kicked(platform, LARGE)
        await task.wait_result(timeout=10, check_interval=0.02)
        shutil.rmtree(Path(platform.settings.storage_url) / "results")

        with pytest.raises(ResultGetError) as refused:
            await task.get_result()

    assert isinstance(refused.value.__cause__, ResultGoneError)
    assert "is not there any more" in str(refused.value.__cause__)


def test_only_the_run_itself_is_believed_where_its_result_lies():
    run, other = new_id(), new_id()

    def told(key: object, size: object = 7, **more: object) -> object:
        return {stored_results.MARK: {"key": key, "bytes": size}} | more

    assert stored_in(run, told(f"results/2026-01-01/{run}-1.json")).bytes == 7
    for result in (
        None, [], "x", {}, {stored_results.MARK: 1}, told(f"results/2026-01-01/{run}-1.json", "7"),
        told(f"results/2026-01-01/{run}-1.json", more=1), told(f"results/2026-01-01/{other}-1.json"),
        told(f"results/../{run}-1.json"), told(f"results/2026-01-01/{run}-1.json\n"), told(None),
    ):  # fmt: skip
        assert stored_in(run, result) is None, result


async def test_results_are_deleted_with_their_day_and_never_before():
    storage, today = MemoryStore(), datetime.now(UTC).date()
    ages = (0, 7, 8, 9, 30)
    for age in ages:
        await obstore.put_async(storage, f"results/{today - timedelta(days=age)}/x-1.json", b"1")
    await obstore.put_async(storage, "results/notes/x.json", b"1")

    deleted = await StoredResults(lambda: storage).forget(WEEK)

    left = {found["path"].split("/")[1] for found in obstore.list(storage, "results").collect()}
    assert deleted == 2
    assert left == {str(today), str(today - WEEK), str(today - timedelta(days=8)), "notes"}
    assert await StoredResults(lambda: storage).forget(WEEK) == 0


async def test_a_worker_puts_the_past_in_order(platform, monkeypatch):
    monkeypatch.setattr(sweeper, "PAST_SECONDS", 0.05)
    old = f"results/{datetime.now(UTC).date() - timedelta(days=40)}/x-1.json"
    await obstore.put_async(platform.storage, old, b"1")

    async def is_gone() -> bool:
        return not obstore.list(platform.storage, old.rpartition("/")[0]).collect()

    async with running(service(platform), platform):
        await eventually(is_gone)


async def test_storage_that_is_away_keeps_its_old_results():
    def nowhere() -> Any:
        raise OSError("no such folder")

    with pytest.raises(TransientError, match="check STORAGE_URL"):
        await StoredResults(nowhere).forget(WEEK)


@pytest.fixture
async def valkey(tmp_path) -> AsyncIterator[Valkey]:
    with StateFolder(tmp_path / "valkey") as folder:
        server = Valkey(folder)
        await server.start()
        yield server
        await server.stop()


@pytest.mark.real("Redis")
async def test_results_survive_a_redis_that_is_emptied_and_one_that_is_gone(platform, valkey, monkeypatch):
    chosen = platform.settings.model_copy(
        update={"task_result_backend": "redis", "redis_url": SecretStr(valkey.url), "task_redis_key_prefix": "mine:"}
    )
    monkeypatch.setattr(redis_results, "REST_SECONDS", 0.05)
    worker = Service(name="press", settings=chosen, tasks=tasks)
    async with running(worker, platform), carillon.connect(tasks, settings=chosen):
        first = await press.kiq(10)
        fresh = await first.wait_result(timeout=10, check_interval=0.02)
        names = await eventually(lambda: keys_of(valkey.url))
        large = await (await press.kiq(LARGE)).wait_result(timeout=10, check_interval=0.02)
        async with Redis.from_url(valkey.url) as client:
            seconds = await client.ttl(names[0])
            await client.set(names[0], b"no JSON")
            unreadable = await first.get_result()
            await client.flushall()
        emptied = await first.get_result()
        await valkey.stop()
        gone = await first.get_result()
        second = await (await press.kiq(12)).wait_result(timeout=10, check_interval=0.02)

    assert names == [f"mine:{first.task_id}".encode()]
    assert 0 < seconds <= 3600
    assert {len(found.return_value["text"]) for found in (fresh, unreadable, emptied, gone)} == {5}
    assert (len(large.return_value["text"]), len(second.return_value["text"])) == (LARGE // 2, 6)


@pytest.mark.real("Redis")
async def test_a_result_is_the_same_from_redis_and_from_the_ledger(platform, valkey):
    update = {"task_result_backend": "redis", "redis_url": SecretStr(valkey.url)}
    chosen = platform.settings.model_copy(update=update)
    async with running(Service(name="press", settings=chosen, tasks=tasks), platform):
        async with carillon.connect(tasks, settings=chosen):
            task = await describe.kiq()
            fresh = await task.wait_result(timeout=10, check_interval=0.02)
            names = await eventually(lambda: keys_of(valkey.url))
        async with Redis.from_url(valkey.url) as client:
            kept = json.loads(await client.get(names[0]))
    row = await row_of(platform, task)

    assert fresh.return_value == row["result"] == kept["return_value"]
    assert row["result"]["page"]["number"] == 3


@pytest.mark.real("Redis")
async def test_a_redis_that_hangs_is_left_alone_for_a_while(platform, valkey, monkeypatch):
    monkeypatch.setattr(redis_results, "REDIS_SECONDS", 0.3)
    update = {"task_result_backend": "redis", "redis_url": SecretStr(valkey.url)}
    chosen = platform.settings.model_copy(update=update)
    async with running(service(platform), platform), carillon.connect(tasks, settings=chosen):
        task = await press.kiq(10)
        await task.wait_result(timeout=10, check_interval=0.02)
        async with Redis.from_url(valkey.url) as client:
            await client.client_pause(60_000, True)
        asked = [await seconds_of(task.get_result()) for _ in range(4)]

    assert asked[0] >= 0.3
    assert max(asked[1:]) < 0.3


async def seconds_of(question: Awaitable[object]) -> float:
    began = time.perf_counter()
    await question
    return time.perf_counter() - began


async def keys_of(url: str) -> list[bytes]:
    async with Redis.from_url(url) as client:
        return sorted(await client.keys())


async def test_the_result_of_a_run_that_nobody_knows_is_no_result(platform):
    task = await kicked(platform, 10)
    task.task_id = str(new_id())

    assert not await task.is_ready()
    with pytest.raises(ResultGetError):
        await task.get_result()
