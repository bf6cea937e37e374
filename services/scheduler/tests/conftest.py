"""A database with schedules in it, and clocks that run on it: in the test's loop, or as processes of their own."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.telemetry.metrics import Metrics
from carillon.testing.blocking import wait_for
from carillon.testing.eventually import eventually
from scheduler.clock import Clock
from scheduler.round import utc_now

PROGRAM = "import asyncio; from scheduler.app import service; asyncio.run(service().run())"
GRACE = timedelta(seconds=300)
LISTENING = re.compile(r"http://127\.0\.0\.1:\d+")


@pytest.fixture(scope="session")
def template(new_database: Callable[..., str]) -> str:
    """A migrated database that each test copies."""
    url = new_database()
    wait_for(migrate(url, "carillon.ledger.migrations", "scheduler.migrations"))
    return url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def platform_url(new_database: Callable[..., str], template: str) -> str:
    return new_database(template)


@pytest.fixture
def platform_settings(platform_url: str, tmp_path: Path) -> PlatformSettings:
    return PlatformSettings(
        database_url=SecretStr(platform_url), rabbit_url=None, rabbit_host=None, storage_url=str(tmp_path)
    )


@pytest.fixture
async def platform(platform_settings: PlatformSettings) -> AsyncIterator[Platform]:
    async with Platform(platform_settings, name="tests") as opened:
        yield opened


class Rows:
    """What is in the tables, asked from outside."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection

    async def schedule(self, name: str, **columns: Any) -> None:
        values = {
            "event_type": "backup.requested.v1",
            "event_data": '{"source": "platform"}',
            "owner": "tests",
            **columns,
        }
        names = ", ".join(["name", *values])
        places = ", ".join(f"${number}" for number in range(1, len(values) + 2))
        await self.connection.execute(
            f"insert into carillon.schedules ({names}) values ({places})", name, *values.values()
        )

    async def fires(self, name: str, outcome: str = "fired") -> list[datetime]:
        query = "select fire_at from carillon.fires where schedule = $1 and outcome = $2 order by 1"
        return [row["fire_at"] for row in await self.connection.fetch(query, name, outcome)]

    async def events(self, name: str) -> list[asyncpg.Record]:
        query = "select * from carillon.events where event_id like $1 || '@%' order by recorded_at"
        return await self.connection.fetch(query, name)

    async def until_fired(self, name: str, times: int = 1, within: float = 15) -> list[datetime]:
        async def often_enough() -> list[datetime]:
            fired = await self.fires(name)
            return fired if len(fired) >= times else []

        return await eventually(often_enough, within=within)

    async def one(self, query: str, *arguments: object) -> Any:
        return await self.connection.fetchval(query, *arguments)


@pytest.fixture
async def rows(platform_url: str) -> AsyncIterator[Rows]:
    connection = await asyncpg.connect(platform_url, server_settings={"application_name": "tests, outside"})
    yield Rows(connection)
    await connection.close()


class Running:
    """A clock in this process."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self.clock = clock
        self.metrics = metrics

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def ticking(platform: Platform) -> Callable[..., AbstractAsyncContextManager[Running]]:
    """A function that runs a clock until its block ends."""
    return partial(tick, platform)


@pytest.fixture
def ticking_on() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """The same on a platform that the test opens."""
    return tick


@asynccontextmanager
async def tick(platform: Platform, *, now: Callable[[], datetime] = utc_now) -> AsyncIterator[Running]:
    """A clock that runs until the block ends; it leads when the block begins."""
    running, stop = Running(Clock(grace=GRACE, now=now), Metrics()), asyncio.Event()
    task = asyncio.create_task(running.clock.run(platform, running.metrics, stop))

    async def leads() -> bool:
        return running.value("carillon_scheduler_leading") == 1

    try:
        await eventually(leads)
        yield running
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


class Process:
    """A scheduler as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid = process.pid

    async def url(self) -> str:
        async def listening() -> str:
            found = LISTENING.search(await asyncio.to_thread(self._log.read_text))
            return found[0] if found else ""

        return await eventually(listening, within=30)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """The exit code of one that was told to end."""
        return await asyncio.wait_for(self._process.wait(), 20)

    async def end(self) -> int:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        return await self.ended()


@pytest.fixture
async def start(platform_url: str, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Process]]]:
    """A function that starts schedulers; they listen when it returns, and are stopped after the test."""
    async with AsyncExitStack() as stack:
        numbers = itertools.count()

        async def begin(**variables: str) -> Process:
            log = tmp_path / f"scheduler-{next(numbers)}.log"
            environment = {
                **{key: value for key, value in os.environ.items() if not key.startswith("RABBIT_")},
                "DATABASE_URL": platform_url,
                "SCHEDULER_PORT": "0",
                "CARILLON_LOG_FORMAT": "json",
                **variables,
            }
            with log.open("wb") as output:
                program = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", PROGRAM, env=environment, stdout=output, stderr=output
                )
            process = Process(program, log)
            stack.push_async_callback(process.end)
            await process.url()
            return process

        yield begin
