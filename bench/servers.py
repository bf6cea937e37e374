"""The three servers: where they are, what is private to this run on them, and its removal."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.errors import BenchError, MissingServerError
from bench.process import output_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: How long a server may take to answer, in seconds.
ANSWER_SECONDS = 5.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Servers:
    """Where this run may write: everything it names is private to it, save the Redis keys, which carry `name`."""

    name: str
    database_url: str
    redis_url: str
    rabbit_url: str
    private_vhost: bool
    versions: dict[str, str]

    def database(self, suffix: str) -> str:
        """The URL of one of this run's own databases."""
        return _with_path(self.database_url, f"{self.name}_{suffix}")


@asynccontextmanager
async def servers(databases: tuple[str, ...]) -> AsyncIterator[Servers]:
    """Find PostgreSQL, Redis and RabbitMQ, make private databases and a private vhost, and remove them at the end."""
    database_url = os.environ.get("DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
    redis_url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
    rabbit_url = os.environ.get("RABBIT_URL", "amqp://guest:guest@127.0.0.1:5672/")
    name = f"carillon_bench_{os.getpid()}"
    versions = {
        "postgresql": await _postgres_version(database_url),
        "redis": await _redis_version(redis_url),
        "rabbitmq": await _rabbit_version(rabbit_url),
    }
    async with AsyncExitStack() as stack:
        vhost_url = await stack.enter_async_context(_vhost(rabbit_url, name))
        stack.push_async_callback(forget_keys, redis_url, name)
        for suffix in databases:
            await stack.enter_async_context(_database(database_url, f"{name}_{suffix}"))
        yield Servers(name, database_url, redis_url, vhost_url or rabbit_url, vhost_url is not None, versions)


async def forget_keys(redis_url: str, prefix: str) -> None:
    """Delete the Redis keys that begin with `prefix`, and no other."""
    async with Redis.from_url(redis_url) as redis:
        batch: list[bytes] = []
        async for key in redis.scan_iter(match=f"{prefix}*", count=5_000):
            batch.append(key)
            if len(batch) == 5_000:
                await redis.unlink(*batch)
                batch.clear()
        if batch:
            await redis.unlink(*batch)


async def _postgres_version(url: str) -> str:
    try:
        connection = await asyncpg.connect(url, timeout=ANSWER_SECONDS)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise _missing(server="PostgreSQL", variable="DATABASE_URL", error=error) from error
    try:
        return str(await connection.fetchval("show server_version")).split()[0]
    finally:
        await connection.close()


async def _redis_version(url: str) -> str:
    try:
        async with Redis.from_url(url, socket_connect_timeout=ANSWER_SECONDS) as redis:
            return str((await redis.info("server"))["redis_version"])
    except (OSError, RedisError) as error:
        raise _missing(server="Redis", variable="REDIS_URL", error=error) from error


async def _rabbit_version(url: str) -> str:
    try:
        connection = await aio_pika.connect(url, timeout=ANSWER_SECONDS)
    except (OSError, aio_pika.exceptions.AMQPError, TimeoutError) as error:
        raise _missing(server="RabbitMQ", variable="RABBIT_URL", error=error) from error
    async with connection:
        properties = connection.transport.connection.server_properties  # type: ignore[union-attr]
        return str(properties.get("version", "unknown"))


def _missing(server: str, variable: str, error: Exception) -> MissingServerError:
    message = f"{server} does not answer ({type(error).__name__}): start it or set {variable}, then run this again."
    return MissingServerError(message)


@asynccontextmanager
async def _database(url: str, name: str) -> AsyncIterator[None]:
    await _execute(url, f'create database "{name}"')
    try:
        yield
    finally:
        await _execute(url, f'drop database if exists "{name}" with (force)')


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=ANSWER_SECONDS)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def _vhost(url: str, name: str) -> AsyncIterator[str | None]:
    """A vhost of our own, or None where `rabbitmqctl` cannot make one: queue names are unique to the run anyway."""
    if not await _made_vhost(url, name):
        yield None
        return
    try:
        yield _with_path(url, name)
    finally:
        await output_of("rabbitmqctl", "-q", "delete_vhost", name)


async def _made_vhost(url: str, name: str) -> bool:
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK or shutil.which("rabbitmqctl") is None:
        return False
    try:
        await output_of("rabbitmqctl", "-q", "add_vhost", name)
        await output_of("rabbitmqctl", "-q", "set_permissions", "-p", name, parts.username or "guest", ".*", ".*", ".*")
    except BenchError:
        return False
    return True


def _with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))
