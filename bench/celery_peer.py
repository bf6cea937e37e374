"""Celery as a measured system: its worker, and its results as the proof of what it executed."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis

from bench.errors import BenchError
from bench.peers_environment import PEERS, PYTHON
from bench.process import output_of, running, wait_until
from bench.system import LARGEST, MEASURE_SECONDS, PREFETCH, Measured

if TYPE_CHECKING:
    from bench.servers import Servers

#: Everything is in the results by then, and Celery 5.7 often sleeps many seconds before it heeds SIGTERM.
PATIENCE_SECONDS = 0.2


@dataclass(frozen=True)
class Span:
    """How many of the tasks have a result, and when the first and the last one ended, in seconds."""

    count: int
    first: float = 0.0
    last: float = 0.0


class Results(Protocol):
    """Where Celery keeps results."""

    url: str

    async def count(self, ids: list[str]) -> int:
        """Say how many of these tasks have a result: cheap, it is asked while Celery works."""
        ...

    async def take(self, ids: list[str]) -> Span:
        """Read when these tasks ended, and forget them; of what failed nothing is said."""
        ...


class RedisResults:
    """Results in Redis, under a prefix of this run's own."""

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix` is the `global_keyprefix` that Celery is given."""
        self.url = url
        self.prefix = prefix

    async def count(self, ids: list[str]) -> int:
        """One EXISTS over all keys."""
        async with Redis.from_url(self.url) as redis:
            return int(await redis.exists(*self._keys(ids)))

    async def take(self, ids: list[str]) -> Span:
        """Celery writes `date_done` into each result just before it stores it."""
        async with Redis.from_url(self.url) as redis:
            found = await redis.mget(self._keys(ids))
            await redis.unlink(*self._keys(ids))
        read = [json.loads(value) for value in found if value is not None]
        ended = [_seconds(result["date_done"]) for result in read if result["status"] == "SUCCESS"]
        return Span(len(ended), min(ended), max(ended)) if ended else Span(0)

    def _keys(self, ids: list[str]) -> list[str]:
        return [f"{self.prefix}celery-task-meta-{identifier}" for identifier in ids]


class DatabaseResults:
    """Results in PostgreSQL, through Celery's SQLAlchemy backend and psycopg."""

    def __init__(self, url: str) -> None:
        """`url` is the database's, without a driver."""
        self.url = urlunsplit(urlsplit(url)._replace(scheme="db+postgresql+psycopg"))
        self.plain_url = url

    async def count(self, ids: list[str]) -> int:
        """Rows of the ids; none yet while Celery has not made its table."""
        return (await self._span(ids)).count

    async def take(self, ids: list[str]) -> Span:
        """Celery writes `date_done` with each result."""
        return await self._span(ids)

    async def _span(self, ids: list[str]) -> Span:
        connection = await asyncpg.connect(self.plain_url)
        try:
            row = await connection.fetchrow(
                "select count(*) as count, extract(epoch from min(date_done))::float8 as first,"
                " extract(epoch from max(date_done))::float8 as last"
                " from celery_taskmeta where task_id = any($1) and status = 'SUCCESS'",
                ids,
            )
        except asyncpg.UndefinedTableError:
            return Span(0)
        finally:
            await connection.close()
        if row is None:
            return Span(0)
        return Span(row["count"], row["first"] or 0.0, row["last"] or 0.0)


def _seconds(date_done: str) -> float:
    moment = datetime.fromisoformat(date_done)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Celery:
    """Celery prefork over RabbitMQ."""

    largest = LARGEST
    #: Its application, and the script that queues N tasks and writes their ids.
    app = "celery_app"
    preload: tuple[str, ...] = ("celery_preload.py",)

    def __init__(self, name: str, servers: Servers, results: Results, queue: str, children: int) -> None:
        """`children` is what Celery calls concurrency: processes that execute, beside the one that consumes."""
        self.name = name
        self.results = results
        self.children = children
        self.log = Path(tempfile.gettempdir()) / f"{queue}.log"
        self.env = {"BENCH_BROKER_URL": servers.rabbit_url, "BENCH_RESULTS_URL": results.url, "BENCH_QUEUE": queue}

    async def measure(self, count: int) -> Measured:
        """Queue, start `celery worker`, and read from its results when it did what."""
        env = {**self.env, "BENCH_PREFETCH": str(PREFETCH // self.children)}
        ids = json.loads(await output_of(str(PYTHON), *self.preload, str(count), env=env, cwd=PEERS))

        async def all_ended() -> bool:
            return await self.results.count(ids) == len(ids)

        async with running(*self.worker(), env=env, cwd=PEERS, log=self.log, patience=PATIENCE_SECONDS) as worker:
            await wait_until(all_ended, what=self.name, limit=MEASURE_SECONDS, process=worker, log=self.log)
        span = await self.results.take(ids)
        self.log.unlink(missing_ok=True)
        if span.count != len(ids):
            message = f"{self.name}: {len(ids)} tasks were queued, and {span.count} of them succeeded"
            raise BenchError(message)
        return Measured(count=span.count, seconds=span.last - span.first)

    def worker(self) -> list[str]:
        """The command of its worker."""
        quiet = ["--loglevel", "warning", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        pool = ["--pool", "prefork", "--concurrency", str(self.children)]
        return [str(PYTHON), "-m", "celery", "-A", self.app, "worker", *pool, *quiet]


def _word(children: int) -> str:
    return "1 child" if children == 1 else f"{children} children"


def over_redis(servers: Servers, children: int) -> Celery:
    """Celery with results in Redis."""
    queue = f"{servers.name}.celery_redis_{children}"
    results = RedisResults(servers.redis_url, f"{queue}:")
    return Celery(f"Celery + Redis results, {_word(children)}", servers, results, queue, children)


def over_database(servers: Servers, children: int) -> Celery:
    """Celery with results in PostgreSQL."""
    queue = f"{servers.name}.celery_database_{children}"
    results = DatabaseResults(servers.database("celery"))
    return Celery(f"Celery + database results, {_word(children)}", servers, results, queue, children)
