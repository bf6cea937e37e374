"""A Valkey of our own: the fast memory beside the ledger, which may be lost without losing a run."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from carillon.embedded import binaries, process
from carillon.embedded.addresses import valkey_url
from carillon.embedded.errors import EmbeddedServerError, PortTakenError, explain

if TYPE_CHECKING:
    from pathlib import Path

    from carillon.embedded.folder import StateFolder

log = structlog.get_logger(__name__)

START_SECONDS = 30.0
STOP_STEPS = ((signal.SIGTERM, 5.0),)


class Valkey:
    """One server on the loopback with a password, its data below a state folder."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self._data = folder.path / "valkey"
        self._child: process.Child | None = None
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """The address of database 0, with the password."""
        return valkey_url(self._password, self._port)

    @property
    def child(self) -> process.Child | None:
        """The running server."""
        return self._child

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        binary = await asyncio.to_thread(binaries.valkey_server)
        await asyncio.to_thread(self._prepare)
        preferred = int(self._folder.notes().get("valkey_port", "0"))
        for attempts_left in (2, 1, 0):
            self._port = process.free_port(preferred)
            self._child = self._run(binary)
            try:
                await self._answer()
            except PortTakenError:
                if not attempts_left:
                    raise
            else:
                break
        log.debug("Valkey started", port=self._port)

    def _run(self, binary: Path) -> process.Child:
        # The settings go through standard input: a password in the arguments would be everybody's to read.
        settings = self._configuration().encode()
        child = process.start("Valkey", [binary, "-"], log=self._folder.log("valkey"), stdin=settings)
        self._folder.note(valkey_port=self._port, valkey_pid=child.pid)
        return child

    async def stop(self) -> None:
        """Write the data out and stop."""
        if self._child is not None:
            await self._child.stop(*STOP_STEPS)
            self._child = None

    def _prepare(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._password = self._folder.password("valkey", may_create=True)
        pid = int(self._folder.notes().get("valkey_pid", "0"))
        if pid and process.end_leftover(pid, str(self._data), *STOP_STEPS):
            log.info("Valkey of an earlier run stopped", pid=pid)

    def _configuration(self) -> str:
        lines = [
            "bind 127.0.0.1",
            f"port {self._port}",
            f"requirepass {self._password}",
            f'dir "{self._data}"',
            "daemonize no",
            "save 300 1",
            # It is a cache: a full disk, or a folder that is gone, must not keep it from ending.
            "shutdown-on-sigterm force",
            "appendonly no",
            # A cache beside the ledger: it must not eat the machine.
            "maxmemory 256mb",
            "maxmemory-policy allkeys-lru",
            "loglevel warning",
            # The folder in the title is how a later start knows that a leftover is ours.
            f'proc-title-template "{{title}} {{listen-addr}} {self._data}"',
        ]
        return "\n".join(lines) + "\n"

    async def _answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        client = Redis.from_url(self.url, socket_connect_timeout=5, socket_timeout=5)
        try:
            while time.monotonic() < deadline:
                if self._child is None or not self._child.alive:
                    raise explain(self._child, "Valkey", self._folder.log("valkey"))
                with suppress(OSError, RedisConnectionError, BusyLoadingError):
                    await client.ping()
                    return
                await asyncio.sleep(process.POLL)
        finally:
            await client.aclose()
        await self.stop()
        message = f"Valkey did not answer within {START_SECONDS:.0f} s; its log is {self._folder.log('valkey')}."
        raise EmbeddedServerError(message)
