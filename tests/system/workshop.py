"""A small domain for tests with real processes: `workshop.py` runs it, `workshop.py 7` submits a run and dies."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import asyncpg
import uvloop

from carillon import Retry, Run, Service, Tasks
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.worker import sweeper, worker
from carillon.worker.broker import CarillonBroker

tasks = Tasks("workshop")

#: Where the tasks leave what they did: the first effect of a run, and every entry into one.
TABLES = """
create table if not exists public.effects (run_id uuid primary key, worker int not null);
create table if not exists public.entries (run_id uuid not null, attempt int not null, worker int not null);
"""


@dataclass(frozen=True)
class Bench:
    """Where work leaves its marks, and the door that it may wait at."""

    pool: asyncpg.Pool[asyncpg.Record]

    async def enter(self, run: Run) -> None:
        """Mark that a run was entered."""
        await self.pool.execute("insert into entries values ($1, $2, $3)", run.id, run.attempt, os.getpid())

    async def finish(self, run: Run) -> None:
        """Leave the effect of a run, once whoever tries."""
        await self.pool.execute("insert into effects values ($1, $2) on conflict do nothing", run.id, os.getpid())


@tasks.task(retry=Retry(attempts=5, base=timedelta(milliseconds=10)))
async def make(number: int, *, run: Run, bench: Bench) -> dict[str, int]:
    """Make a thing.

    Safe to run twice: the effect is kept under the run's id.
    """
    await bench.enter(run)
    await bench.finish(run)
    return {"number": number}


@tasks.task()
async def make_slowly(door: str, *, run: Run, bench: Bench) -> str:
    """Make a thing when the door of this attempt, the file `door` and its number, exists.

    Safe to run twice: the effect is kept under the run's id.
    """
    await bench.enter(run)
    while not await asyncio.to_thread(Path(f"{door}.{run.attempt}").exists):  # noqa: ASYNC110
        # Another process opens the door: there is nothing to wait on but time.
        await asyncio.sleep(0.02)
    await bench.finish(run)
    return f"made by {os.getpid()}"


@tasks.task(retry=Retry(attempts=10))
async def explode(*, run: Run, bench: Bench) -> NoReturn:
    """Kill the process that runs this.

    Safe to run twice: it has no effect but the obvious one.
    """
    await bench.enter(run)
    os._exit(86)


@asynccontextmanager
async def resources(platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """The bench."""
    dsn = platform.settings.database_url.get_secret_value()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        yield {Bench: Bench(pool)}


def service() -> Service:
    """The workshop, with the patience of a test: the lease is shorter than in real life."""
    sweeper.SILENCE = timedelta(seconds=3)
    sweeper.ROUND_SECONDS = 0.5
    worker.HEARTBEAT_SECONDS = 0.5
    return Service(name="workshop", settings=PlatformSettings(), tasks=tasks, resources=resources, concurrency=4)


def broker() -> CarillonBroker:
    """What `taskiq worker workshop:broker` runs."""
    return service().broker()


async def submit_and_die(number: int) -> None:
    """Submit a run, and be killed between its commit and its way to the transport."""
    async with Platform(PlatformSettings(), name="doomed") as platform:

        async def die(*_: object) -> list[object]:
            os._exit(137)

        platform.transport.dispatch = die
        connected = CarillonBroker(platform, list(tasks.declared.values()), [], None)
        await make.kicker().with_broker(connected).kiq(number)
        # Where the ledger itself is the transport, there is nothing between commit and answer.
        os._exit(137)


if __name__ == "__main__":
    if sys.argv[1:]:
        uvloop.run(submit_and_die(int(sys.argv[1])))
    else:
        uvloop.run(service().run())
