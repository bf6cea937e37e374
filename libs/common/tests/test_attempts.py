"""What a worker does with one attempt: retries by rule and budget, on both transports."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from behind import execute

from carillon import NEVER, Retry, Run, Service, Tasks
from carillon.errors import TransientError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running

SOON = {"base": timedelta(milliseconds=10), "cap": timedelta(milliseconds=20)}


class Bench:
    """What the code of the tasks did."""

    def __init__(self) -> None:
        self.down = True
        self.began: list[float] = []
        self.seen: Counter[str] = Counter()


def mill_service(settings: PlatformSettings, bench: Bench) -> Service:
    tasks = Tasks("mill")

    @tasks.task(retry=Retry(attempts=2, **SOON, rules={ConnectionError: Retry(attempts=4, **SOON), LookupError: NEVER}))
    async def stumble(over: str) -> None:
        """Raise. Safe to run twice: it only raises."""
        raise {"reset": ConnectionResetError, "key": KeyError, "value": ValueError}[over](over)

    @tasks.task(retry=Retry(attempts=1000, **SOON | {"cap": timedelta(minutes=1)}, per_second=10))
    async def ask(*, run: Run) -> None:
        """Ask somebody who is down. Safe to run twice: it only asks."""
        bench.seen["retries" if run.attempt > 1 else "first"] += 1
        if bench.down:
            raise TransientError("down")

    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def resources(_):
        yield {Bench: bench}

    return Service(name="mill", settings=settings, tasks=tasks, resources=resources)


def new_run(task: str, args: str = "{}", **options: Any) -> NewRun:
    return NewRun(id=new_id(), domain="mill", task=f"mill.{task}", args=args, **options)


async def ended(platform: Platform, run: NewRun, *, within: float = 15) -> Any:
    async def look():
        row = await platform.history.run(run.id)
        return row if row and row["finished_at"] else None

    return await eventually(look, within=within)


async def is_true(look: Any) -> Any:
    async def ask():
        return look()

    return await eventually(ask)


@pytest.mark.parametrize(("over", "attempts"), [("reset", 4), ("key", 1), ("value", 2)])
async def test_each_type_of_error_has_its_own_patience_and_each_attempt_can_be_looked_at(platform, over, attempts):
    run = new_run("stumble", f'{{"over": "{over}"}}')

    async with running(mill_service(platform.settings, Bench()), platform):
        await platform.submit(run)
        end = await ended(platform, run)
        (worker,) = await platform.history.live_workers()

    tried = await platform.history.attempts(run.id)
    assert (end["state"], end["attempt"]) == ("failed", attempts)
    assert [each["attempt"] for each in tried] == list(range(1, attempts + 1))
    assert [each["outcome"] for each in tried] == ["retried"] * (attempts - 1) + ["failed"]
    for each in tried:
        assert over in each["error"]["message"]
        assert "Traceback" in each["error"]["traceback"]
        assert each["worker_id"] == worker["id"]
        assert each["started_at"] <= each["finished_at"]


async def test_a_dependency_that_is_down_is_asked_no_more_often_than_the_budget_allows(platform):
    bench = Bench()
    runs = [new_run("ask") for _ in range(40)]

    async with running(mill_service(platform.settings, bench), platform):
        for run in runs:
            await platform.submit(run)
        await is_true(lambda: bench.seen["first"] == len(runs))
        first = dict(bench.seen)
        began = time.monotonic()
        await is_true(lambda: bench.seen["retries"] >= first.get("retries", 0) + 30)
        took = time.monotonic() - began
        bench.down = False
        ends = [await ended(platform, run) for run in runs]

    assert took > 2
    assert {end["state"] for end in ends} == {"completed"}


@pytest.mark.real("attempts that nobody made")
async def test_of_a_run_that_was_tried_very_often_the_newest_attempts_are_told(platform):
    run = NewRun(id=new_id(), domain="mill", task="mill.ask", args="{}")
    await platform.submit(run)
    await execute(
        platform,
        """insert into carillon.attempts (run_id, attempt, finished_at, outcome)
           select $1, number, now(), 'snoozed' from generate_series(1, 600) as number""",
        run.id,
    )

    tried = await platform.history.attempts(run.id)

    assert [each["attempt"] for each in tried] == list(range(101, 601))
