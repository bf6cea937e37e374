"""`carillon up`: servers, migrations and every installed service, in one terminal, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from carillon.cli import installed
from carillon.cli.child import ServiceChild
from carillon.cli.exits import FAILED, OK, in_one_sentence
from carillon.cli.merged_log import MergedLog
from carillon.cli.settings import CommandSettings
from carillon.cli.web import ask
from carillon.embedded import process
from carillon.embedded.errors import EmbeddedServerError
from carillon.embedded.servers import Servers
from carillon.errors import ConfigurationError, PlatformUnavailableError
from carillon.settings import PlatformSettings

#: The service that gets the address people know.
GATEWAY = "gateway"
#: A first start imports everything from a cold disk, in seconds.
READY_SECONDS = 120.0
PORT_SECONDS = 3.0
#: Between two looks at what sends no signal, in seconds.
LOOK_SECONDS = 0.1
WATCH_SECONDS = 1.0
OK_STATUS = 200
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run() -> int:
    """Run until a signal; 0 when everything was stopped cleanly."""
    return in_one_sentence(lambda: asyncio.run(_Up(CommandSettings(), MergedLog()).run()))


class _Up:
    """One platform on this machine."""

    def __init__(self, settings: CommandSettings, log: MergedLog) -> None:
        self._settings = settings
        self._log = log
        self._children: list[ServiceChild] = []
        self._stop = asyncio.Event()

    async def run(self) -> int:
        began = time.monotonic()
        self._log.take_logs()
        names = self._services()
        await self._check_port()
        loop = asyncio.get_running_loop()
        for number in STOPPING_SIGNALS:
            loop.add_signal_handler(number, self._asked_to_stop)
        async with self._servers() as (servers, env):
            if not await self._migrated(env):
                return OK if self._stop.is_set() else FAILED
            await self._serve(names, servers, env, began)
        self._log.say("stopped; the data stays", home=str(self._settings.home))
        return OK

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self._log.say("asked again, killing what still runs", "warning")
            for child in self._children:
                child.kill()
        self._stop.set()

    def _services(self) -> list[str]:
        names = installed.names()
        if not names:
            message = "No service is installed here; run `make setup`."
            raise ConfigurationError(message)
        return names

    async def _check_port(self) -> None:
        """Wait a moment for the port: the gateway of a run that was just killed is still ending."""
        port, deadline = self._settings.carillon_port, time.monotonic() + PORT_SECONDS
        while fault := _bind_fault(port):
            if time.monotonic() > deadline:
                message = f"Port {port} cannot be used ({fault}); stop what uses it, or set CARILLON_PORT."
                raise ConfigurationError(message)
            await asyncio.sleep(LOOK_SECONDS)

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[tuple[Servers, dict[str, str]]]:
        """Servers of our own where none are named, and the environment in which everything finds everything."""
        settings = self._settings
        own = Servers(settings.home, postgres=settings.database_url is None, valkey=settings.redis_url is None)
        async with own as servers:
            env = dict(os.environ) | self._environment()
            if settings.database_url is None:
                env["DATABASE_URL"] = servers.database_url
            if settings.redis_url is None:
                env["REDIS_URL"] = servers.redis_url
            self._log.say("servers answer", home=str(settings.home))
            yield servers, env

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        return {
            "CARILLON_HOME": str(settings.home),
            "CARILLON_LOG_FORMAT": "json",
            "GATEWAY_KEY_FILE": str(settings.key_file),
            "STORAGE_URL": settings.storage_url or str(settings.home / "storage"),
            # A line is shown when it is written.
            "PYTHONUNBUFFERED": "1",
        }

    async def _migrated(self, env: Mapping[str, str]) -> bool:
        """Migrate in a process of its own, whose memory returns."""
        command = process.guarded([sys.executable, "-m", "carillon.cli.migrate"])
        migrating = await asyncio.create_subprocess_exec(*command, env=env, start_new_session=True)
        ended, stopped = asyncio.create_task(migrating.wait()), asyncio.create_task(self._stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            migrating.terminate()
        return await ended == 0 and not self._stop.is_set()

    async def _serve(self, names: list[str], servers: Servers, env: Mapping[str, str], began: float) -> None:
        self._children = [self._child(name, env) for name in names]
        parts = [
            *(asyncio.create_task(child.keep_alive(), name=child.name) for child in self._children),
            asyncio.create_task(self._watch(servers), name="servers"),
            asyncio.create_task(self._announce(began), name="announce"),
        ]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await _until(stopped, parts)
        finally:
            self._log.say("stopping, Ctrl-C again to kill")
            stopped.cancel()
            await asyncio.gather(*(child.stop() for child in self._children))
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    def _child(self, name: str, env: Mapping[str, str]) -> ServiceChild:
        port = self._settings.carillon_port if name == GATEWAY else process.free_port()
        return ServiceChild(name, port, env, self._log, drain=PlatformSettings().carillon_drain_seconds)

    async def _watch(self, servers: Servers) -> None:
        """Start our servers again when they die; the services connect again by themselves."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for name in servers.ended():
                self._log.say(f"{name} died, starting it again", "error")
            try:
                await servers.restart_ended()
            except EmbeddedServerError as error:
                self._log.say(str(error), "error")

    async def _announce(self, began: float) -> None:
        """Say how to use the platform as soon as every service is ready."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await asyncio.gather(*(_ready(child.port) for child in self._children))
        except TimeoutError:
            self._log.say(f"not everything was ready within {READY_SECONDS:.0f} s; `carillon doctor` says why", "error")
        else:
            self._log.plain(_welcome(self._settings, time.monotonic() - began))


def _bind_fault(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or "it is taken"
    return None


async def _ready(port: int) -> None:
    while True:
        with suppress(PlatformUnavailableError):
            if (await ask(f"http://127.0.0.1:{port}/health/ready")).status == OK_STATUS:
                return
        await asyncio.sleep(LOOK_SECONDS)


async def _until(stopped: asyncio.Task[bool], parts: list[asyncio.Task[None]]) -> None:
    """Return when asked to stop; raise what any part fails with."""
    waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {stopped, *parts}
    while not stopped.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            if error := part.exception():
                raise error


def _welcome(settings: CommandSettings, seconds: float) -> str:
    try:
        key_file = settings.key_file.relative_to(Path.cwd())
    except ValueError:
        key_file = settings.key_file
    example = f'curl -H "Authorization: Bearer $(cat {key_file})" {settings.url}/api/v1/tasks'
    return f"""
  Carillon is up after {seconds:.1f} s.
    Status page   {settings.url}/
    With the key  {example}
    See it work   make tour        (in another terminal)
    Stop          Ctrl-C           (the data stays in {settings.home})
"""
