"""How attempts end whose code raises, says or returns what cannot be kept: always in the ledger, and once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from shop import OrderPacked, OrderPlaced

from carillon import Retry, Run, Service, Tasks, middleware
from carillon.errors import PermanentError, Snooze, TransientError
from carillon.ids import new_id
from carillon.ledger.records import Claimed, Delivery, NewRun
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from carillon.worker import execution
from carillon.worker.receiver import Receiver
from carillon.worker.results import results_of


def odd_service(settings) -> Service:
    tasks = Tasks("odd")

    @tasks.task(retry=Retry(attempts=1))
    async def raise_an_error(message: str, *, run: Run) -> None:
        """Raise. Safe to run twice: it only raises."""
        raise PermanentError(message.replace("half", "\udce9").replace("nul", "\x00"))

    class Nap(Snooze):
        """It forgets to say for how long."""

        def __init__(self) -> None:
            Exception.__init__(self, "so tired")

    @tasks.task()
    async def take_a_nap() -> None:
        """Raise what cannot be understood. Safe to run twice: it only raises."""
        raise Nap

    @tasks.task()
    async def say_an_event(order: str, *, run: Run) -> str:
        """Say. Safe to run twice: an event is said once."""
        run.say(OrderPacked(order="before"))
        run.say(OrderPlaced.model_construct(order=order.replace("half", "\udce9").replace("nul", "\x00")))
        return "said"

    @tasks.task()
    async def return_a_text(text: str) -> str:
        """Return. Safe to run twice: it only returns."""
        return text.replace("half", "\udce9").replace("nul", "\x00").replace("huge", "x" * 300_000)

    def sold_out(arguments: Mapping[str, Any], error: BaseException) -> OrderPacked:
        return OrderPacked(order=f"{arguments['order']} was not packed: {error}")

    @tasks.task(retry=Retry(attempts=2, base=timedelta(milliseconds=20)), on_failure=sold_out)
    async def pack(order: str, *, run: Run) -> None:
        """Pack. Safe to run twice: it only raises."""
        run.say(OrderPlaced(order="of an attempt that fails"))
        raise TransientError("no box")

    @tasks.task(retry=Retry(attempts=1))
    async def exit_the_process() -> None:
        """Exit. Safe to run twice: it is not let."""
        raise SystemExit("never mind")

    return Service(name="odd", settings=settings, tasks=tasks)


async def ended(platform: Platform, task: str, args: str = "{}") -> dict:
    run = NewRun(id=new_id(), domain="odd", task=f"odd.{task}", args=args)
    await platform.submit(run)

    async def look():
        row = await platform.history.run(run.id)
        return row if row["finished_at"] else None

    return await eventually(look, within=8)


async def test_an_error_that_cannot_be_understood_ends_its_run(platform):
    async with running(odd_service(platform.settings), platform):
        row = await ended(platform, "take_a_nap")

    assert (row["state"], row["error"]["message"]) == ("failed", "so tired")


async def test_every_attempt_ends_whatever_its_code_raises_says_or_returns(platform, monkeypatch):
    monkeypatch.setattr(execution, "MOST_RESULT_BYTES", 256 * 1024)
    async with running(odd_service(platform.settings), platform):
        ends = [
            await ended(platform, "raise_an_error", '{"message": "no file caf-half"}'),
            await ended(platform, "raise_an_error", '{"message": "nul"}'),
            await ended(platform, "say_an_event", '{"order": "half"}'),
            await ended(platform, "say_an_event", '{"order": "nul"}'),
            await ended(platform, "say_an_event", f'{{"order": "{"x" * 300}"}}'),
            await ended(platform, "return_a_text", '{"text": "half"}'),
            await ended(platform, "return_a_text", '{"text": "nul"}'),
            await ended(platform, "return_a_text", '{"text": "huge"}'),
            await ended(platform, "exit_the_process"),
        ]
        good = await ended(platform, "say_an_event", '{"order": "o1"}')

    assert [(end["state"], end["attempt"]) for end in ends] == [("failed", 1)] * len(ends)
    assert ends[0]["error"]["message"] == r"no file caf-\udce9"
    assert ends[1]["error"]["message"] == "\ufffd"
    assert [end["result"] for end in ends] == [None] * len(ends)
    assert [await platform.history.said_by(end["id"]) for end in ends] == [[]] * len(ends)
    assert [event["type"] for event in await platform.history.said_by(good["id"])] == [
        "shop.order_packed.v1",
        "shop.order_placed.v1",
    ]


async def test_a_run_says_once_that_it_failed_and_only_when_no_attempt_is_left(platform):
    async with running(odd_service(platform.settings), platform):
        end = await ended(platform, "pack", '{"order": "o1"}')
        wrong = await ended(platform, "pack", '{"order": 1}')
        speechless = await ended(platform, "pack", "{}")

    assert [(each["state"], each["attempt"]) for each in (end, wrong, speechless)] == [
        ("failed", 2), ("failed", 1), ("failed", 1)
    ]  # fmt: skip
    assert [event["data"] for event in await platform.history.said_by(end["id"])] == [
        {"order": "o1 was not packed: no box"}
    ]
    (told,) = await platform.history.said_by(wrong["id"])
    assert told["data"]["order"].startswith("1 was not packed: the arguments of odd.pack do not fit")
    assert await platform.history.said_by(speechless["id"]) == []


@pytest.fixture
async def cached(ledger_url, redis_url):
    settings = PlatformSettings(
        database_url=SecretStr(ledger_url), redis_url=SecretStr(redis_url), task_result_backend="redis", rabbit_url=None
    )
    async with Platform(settings, name="test") as opened:
        yield opened, redis_url


async def keys(redis_url: str) -> list[str]:
    client = Redis.from_url(redis_url, decode_responses=True)
    try:
        return sorted([key async for key in client.scan_iter(match="taskiq:*")])
    finally:
        await client.aclose()


async def test_only_what_the_ledger_has_is_put_into_redis(cached):
    platform, redis_url = cached
    service = odd_service(platform.settings)
    worker, results = new_id(), results_of(platform)
    receiver = Receiver(
        platform,
        worker,
        "odd",
        service.tasks.declared,
        {},
        middlewares=[middleware.MetricsMiddleware(service.metrics)],
        metrics=service.metrics,
        results=results,
        concurrency=1,
    )
    await platform.ledger.enrol(worker, "odd", "here", 1, "0", 1)
    kept, stale, refused = [
        await submitted(platform, task) for task in ("return_a_text", "return_a_text", "say_an_event")
    ]

    assert await platform.ledger.start((stale, 1, worker))
    await platform.ledger.hand_back(worker)

    await execute(receiver, kept, "return_a_text", {"text": "fresh"})
    await execute(receiver, stale, "return_a_text", {"text": "stale"}, Claimed)
    await execute(receiver, refused, "say_an_event", {"order": "nul"})
    found = await results.get_result(str(kept))
    await results.shutdown()

    assert (await keys(redis_url)) == [f"taskiq:result:{kept}"]
    assert found.return_value == "fresh"
    assert [(await platform.history.run(run))["state"] for run in (kept, stale, refused)] == [
        "completed",
        "retrying",
        "failed",
    ]
    counted = service.metrics.registry.get_sample_value
    for task, status in (("return_a_text", "success"), ("return_a_text", "fenced"), ("say_an_event", "failed")):
        assert counted("taskiq_tasks_total", {"task_name": f"odd.{task}", "status": status}) == 1
    assert counted("taskiq_tasks_total", {"task_name": "odd.say_an_event", "status": "success"}) is None


async def submitted(platform: Platform, task: str) -> UUID:
    run = NewRun(id=new_id(), domain="odd", task=f"odd.{task}", args="{}", run_at=datetime.now(UTC))
    return (await platform.submit(run)).id


async def execute(receiver: Receiver, run: UUID, task: str, args: dict[str, str], kind: type = Delivery) -> None:
    async def acknowledge() -> None: ...

    delivery = kind(id=run, attempt=1, task=f"odd.{task}", args=args)
    await receiver.execute(delivery, acknowledge)
