"""The PostgreSQL and the Redis that tests run on: found where one answers, otherwise started from the wheels."""

from __future__ import annotations

import getpass
import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from carillon.embedded.errors import EmbeddedServerError
from carillon.embedded.servers import Servers
from carillon.testing.blocking import wait_for

#: A server that does not answer within this many seconds counts as absent.
PROBE_SECONDS = 3.0
#: How long a killed session's claim on a Redis database lasts, in seconds.
CLAIM_SECONDS = 3600
CLAIM: Final = "carillon:tests:claimed"


class ServerUnusableError(Exception):
    """A server was named by a variable and cannot be used; the sentence says why."""


class SessionServers:
    """Addresses for the tests of one session, and what has to be stopped at its end."""

    def __init__(self) -> None:
        self._names = itertools.count(1)
        self._embedded: Servers | None = None
        self._home: Path | None = None
        self._postgres: str | None = None
        self._redis: str | None = None

    def postgres(self) -> str:
        """The address of a database from which others may be created."""
        if self._postgres is None:
            self._postgres = find_postgres() or self._own().database_url
        return self._postgres

    def redis(self) -> str:
        """The address of a Redis or Valkey."""
        if self._redis is None:
            self._redis = find_redis() or self._own().redis_url
        return self._redis

    def hand_over(self) -> dict[str, Any]:
        """The two addresses, found or started, for `take_over` in another process of this session.

        None stands for a server that cannot be had: whoever asks for it finds out by itself, and is told why.
        """
        found: dict[str, Any] = {}
        for name, address in (("postgres", self.postgres), ("redis", self.redis)):
            try:
                found[name] = address()
            except (ServerUnusableError, EmbeddedServerError, OSError, TimeoutError):
                found[name] = None
        return found

    def take_over(self, found: dict[str, Any]) -> None:
        """Use the servers of another process, which stops them after this one."""
        self._postgres, self._redis = found["postgres"], found["redis"]

    def create_database(self, template: str = "template0") -> str:
        """Make a database and return its address; `template` is the name of one to copy."""
        name = f"carillon_test_{os.getpid()}_{next(self._names)}"
        wait_for(_execute(self.postgres(), f'create database "{name}" template "{template}"'))
        return with_database(self.postgres(), name)

    def drop_database(self, url: str) -> None:
        """Drop a database made here, and end whoever is still connected to it."""
        name = urlsplit(url).path.lstrip("/")
        wait_for(_execute(self.postgres(), f'drop database if exists "{name}" with (force)'))

    def claim_redis(self) -> str:
        """The address of an empty Redis database that is this session's until it is flushed."""
        return wait_for(_claim(self.redis()))

    def release_redis(self, url: str) -> None:
        """Empty a database that `claim_redis` gave."""
        wait_for(_flush(url))

    def stop(self) -> None:
        """Stop what was started, and leave no folder behind."""
        if self._embedded is not None:
            wait_for(self._embedded.stop())
            self._embedded = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def _own(self) -> Servers:
        """Our own servers; both, because the second costs a tenth of a second."""
        if self._embedded is None:
            self._home = Path(tempfile.mkdtemp(prefix="carillon-tests-"))
            # Run by root, PostgreSQL is another user and must be able to pass through.
            self._home.chmod(0o711)
            servers = Servers(self._home)
            wait_for(servers.__aenter__(), seconds=150)
            self._embedded = servers
        return self._embedded


def with_database(url: str, name: str) -> str:
    """The same server's address with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def find_postgres() -> str | None:
    """A PostgreSQL that lets us create databases: the one the variables name, or the one at the default port."""
    for variable in ("CARILLON_TEST_DATABASE_URL", "DATABASE_URL"):
        if named := os.environ.get(variable):
            return _required(named, variable)
    for user in ("postgres", getpass.getuser()):
        url = f"postgresql://{user}@127.0.0.1:5432/postgres"
        if wait_for(_may_create(url)) is True:
            return url
    return None


def _required(url: str, variable: str) -> str:
    answer = wait_for(_may_create(url))
    if answer is not True:
        message = f"{variable} names a PostgreSQL that the tests cannot use: {answer}"
        raise ServerUnusableError(message)
    return url


async def _may_create(url: str) -> bool | str:
    """True, or the reason why not."""
    try:
        connection = await asyncpg.connect(url, timeout=PROBE_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return f"{type(error).__name__}: {error}"
    try:
        may = await connection.fetchval("select rolsuper or rolcreatedb from pg_roles where rolname = current_user")
    finally:
        await connection.close()
    return True if may else "its user may not create databases"


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def find_redis() -> str | None:
    """The Redis that `REDIS_URL` names, or the one at the default port when it answers without a password."""
    named = os.environ.get("REDIS_URL")
    url = named or "redis://127.0.0.1:6379/0"
    if wait_for(_pings(url)):
        return url
    if named:
        message = "REDIS_URL names a Redis that does not answer."
        raise ServerUnusableError(message)
    return None


async def _pings(url: str) -> bool:
    client = Redis.from_url(url, socket_connect_timeout=PROBE_SECONDS, socket_timeout=PROBE_SECONDS)
    try:
        with suppress(OSError, RedisError):
            await client.ping()
            return True
        return False
    finally:
        await client.aclose()


async def _claim(url: str) -> str:
    """The highest-numbered database that holds nothing, so that nobody's data is ever flushed."""
    for number in range(15, 0, -1):
        candidate = with_database(url, str(number))
        client = Redis.from_url(candidate, socket_timeout=PROBE_SECONDS)
        try:
            if await client.dbsize() == 0 and await client.set(CLAIM, os.getpid(), nx=True, ex=CLAIM_SECONDS):
                return candidate
        finally:
            await client.aclose()
    message = "The Redis has no empty database among 1 to 15; empty one, or set REDIS_URL to another server."
    raise ServerUnusableError(message)


async def _flush(url: str) -> None:
    client = Redis.from_url(url, socket_timeout=PROBE_SECONDS)
    try:
        await client.flushdb()
    finally:
        await client.aclose()
