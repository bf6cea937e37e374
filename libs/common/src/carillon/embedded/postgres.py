"""A PostgreSQL of our own: made once, then started, and stopped without losing a commit."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import structlog

from carillon.embedded import binaries, process
from carillon.embedded.account import server_account, shared_place
from carillon.embedded.addresses import DATABASE, USER, postgres_url
from carillon.embedded.errors import EmbeddedServerError, PortTakenError, explain

if TYPE_CHECKING:
    from carillon.embedded.account import Account
    from carillon.embedded.folder import StateFolder

log = structlog.get_logger(__name__)

#: The superuser of our server; the backup's restore proof has to create databases.
#: A start after a crash replays the log first, in seconds.
START_SECONDS = 120.0
#: Fast shutdown ends sessions and writes a checkpoint; immediate shutdown only loses time at the next start.
STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))

SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    # Six services with about eight connections each, and room for a person, a backup and the tests.
    "max_connections": "200",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    # Fewer processes while idle: nobody replicates from here, and reads come from the page cache.
    "io_method": "sync",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "log_min_messages": "warning",
    "log_line_prefix": "%m ",
}


class Postgres:
    """One server and its data folder below a state folder, or at the place noted in it."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._child: process.Child | None = None
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """The address of the database `carillon`, with the password."""
        return self._url(DATABASE)

    @property
    def child(self) -> process.Child | None:
        """The running server."""
        return self._child

    def _url(self, database: str) -> str:
        return postgres_url(self._password, self._port, database)

    async def start(self) -> None:
        """Start the server, making its data folder at the first time, and wait until it answers."""
        account = server_account()
        install = await asyncio.to_thread(binaries.postgres_for, account)
        data = await asyncio.to_thread(self._prepare, install, account)
        preferred = int(self._folder.notes().get("postgres_port", "0"))
        for attempts_left in (2, 1, 0):
            self._port = process.free_port(preferred)
            self._child = self._run(install, data, account)
            try:
                await self._answer()
            except PortTakenError:
                if not attempts_left:
                    raise
            else:
                break
        self._folder.note(postgres_data=str(data), postgres_port=self._port)
        log.debug("PostgreSQL started", port=self._port, data=str(data))

    async def stop(self) -> None:
        """End every session, write everything out, and stop."""
        if self._child is not None:
            await self._child.stop(*STOP_STEPS)
            self._child = None

    def _prepare(self, install: Path, account: Account | None) -> Path:
        data = self._data_folder(account)
        self._stop_leftover(data)
        if (data / "PG_VERSION").exists():
            self._check_version(install, data)
            self._password = self._folder.password("postgres", may_create=False)
        else:
            self._password = self._folder.password("postgres", may_create=True)
            _initialise(install, data, account, self._password, self._folder.log("initdb"))
        return data

    def _data_folder(self, account: Account | None) -> Path:
        noted = self._folder.notes().get("postgres_data")
        if noted and (Path(noted) / "PG_VERSION").exists():
            if account is not None and not account.can_enter(Path(noted).parent):
                message = f"PostgreSQL runs as the user nobody, who can no longer enter {noted}; let others pass there."
                raise EmbeddedServerError(message)
            return Path(noted)
        if noted:
            log.warning("data folder is gone, beginning with an empty one", folder=noted)
        if account is None or account.can_enter(self._folder.path):
            return self._folder.path / "postgres"
        return shared_place() / f"{self._folder.path.name.strip('.')}-{os.urandom(4).hex()}" / "postgres"

    def _stop_leftover(self, data: Path) -> None:
        with suppress(FileNotFoundError, ValueError, IndexError):
            pid = int((data / "postmaster.pid").read_text().splitlines()[0])
            if process.end_leftover(pid, str(data), *STOP_STEPS):
                log.info("PostgreSQL of an earlier run stopped", pid=pid)

    def _check_version(self, install: Path, data: Path) -> None:
        held, installed = (data / "PG_VERSION").read_text().strip(), binaries.major_version(install)
        if held != installed:
            message = (
                f"{data} holds data of PostgreSQL {held}, but {installed} is installed; "
                f"carry it over with pg_upgrade, or move {self._folder.path} away to begin anew."
            )
            raise EmbeddedServerError(message)

    def _run(self, install: Path, data: Path, account: Account | None) -> process.Child:
        options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        return process.start(
            "PostgreSQL",
            [install / "bin" / "postgres", "-D", data, "-p", str(self._port), *options],
            log=self._folder.log("postgres"),
            death_signal=signal.SIGINT,
            account=account,
            env=_environment(),
        )

    async def _answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._child is None or not self._child.alive:
                raise explain(self._child, "PostgreSQL", self._folder.log("postgres"))
            with suppress(OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                return await self._create_database()
            await asyncio.sleep(process.POLL)
        await self.stop()
        message = f"PostgreSQL did not answer within {START_SECONDS:.0f} s; its log is {self._folder.log('postgres')}."
        raise EmbeddedServerError(message)

    async def _create_database(self) -> None:
        try:
            connection = await asyncpg.connect(self._url("postgres"), timeout=10)
        except asyncpg.InvalidPasswordError:
            file = self._folder.path / "postgres.password"
            message = f"{file} does not fit the data; bring the right one back, or move the folder away to begin anew."
            await self.stop()
            raise EmbeddedServerError(message) from None
        try:
            if not await connection.fetchval("select 1 from pg_database where datname = $1", DATABASE):
                await connection.execute(f'create database "{DATABASE}"')
        finally:
            await connection.close()


def _environment() -> dict[str, str]:
    """Nothing of ours: a PGDATA or PGPORT set for other servers must not reach this one."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _initialise(install: Path, data: Path, account: Account | None, password: str, log_path: Path) -> None:
    """Make a data folder beside `data` and move it there when whole: a killed start leaves nothing half made."""
    data.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    fresh, secret = data.with_name(f"{data.name}.new"), data.with_name(f"{data.name}.secret")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    secret.unlink(missing_ok=True)
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(password)
    if account is not None:
        for path in (fresh, secret):
            os.chown(path, account.uid, account.gid)
    try:
        _run_initdb(install, fresh, secret, account, log_path)
        fresh.replace(data)
    finally:
        secret.unlink(missing_ok=True)


def _run_initdb(install: Path, data: Path, secret: Path, account: Account | None, log_path: Path) -> None:
    command: list[str | Path] = [install / "bin" / "initdb", "-D", data, "-U", USER, "--pwfile", secret]
    command += [
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    child = process.start("initdb", command, log=log_path, account=account, env=_environment())
    deadline = time.monotonic() + START_SECONDS
    while child.alive and time.monotonic() < deadline:
        time.sleep(process.POLL)
    if child.exit_code != 0:
        child.stop_now()
        raise explain(child, "PostgreSQL", log_path)
