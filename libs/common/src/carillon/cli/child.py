"""One service as a child of `carillon up`: started, read from, started again when it dies, stopped in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Mapping
from contextlib import suppress

from carillon.cli.exits import MISCONFIGURED
from carillon.cli.merged_log import MergedLog
from carillon.embedded.process import guarded
from carillon.errors import ConfigurationError

#: Between the death of a service and its next start: doubles from the first to the last, in seconds.
FIRST_REST, LONGEST_REST = 0.5, 30.0
#: A service that lived this long begins again with the first rest.
HEALTHY_SECONDS = 60.0
#: After its drain a service has this many seconds left to hand back and to end; then it is killed.
SPARE_SECONDS = 5.0
#: The longest line that is read whole, in bytes.
LONGEST_LINE = 1 << 20


class ServiceChild:
    """Keeps one service alive until told to stop."""

    def __init__(self, name: str, port: int, env: Mapping[str, str], log: MergedLog, *, drain: float) -> None:
        self.name = name
        self.port = port
        self._command = [sys.executable, "-m", "carillon.cli.serve", name]
        self._env = {**env, f"{name.upper()}_PORT": str(port)}
        self._log = log
        self._patience = drain + SPARE_SECONDS
        self._process: Process | None = None
        self._stopping = False

    async def keep_alive(self) -> None:
        """Run the service again and again; raises `ConfigurationError` when another start cannot help."""
        rest = FIRST_REST
        while not self._stopping:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                return
            if code == MISCONFIGURED:
                message = f"The service {self.name} cannot start with these settings; its sentence is above."
                raise ConfigurationError(message)
            if time.monotonic() - began > HEALTHY_SECONDS:
                rest = FIRST_REST
            ended = f"{self.name} died ({_ending(code)}), starting it again in {rest:g} s"
            self._log.say(ended, "error")
            await asyncio.sleep(rest)
            rest = min(rest * 2, LONGEST_REST)

    async def stop(self) -> None:
        """Ask the service to drain, wait, and kill what is left of it."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._patience)
        except TimeoutError:
            self._log.say(f"{self.name} did not stop within {self._patience:g} s and was killed", "warning")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End the service and whatever it started, at once."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _run_once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *guarded(self._command),
            stdout=PIPE,
            stderr=STDOUT,
            env=self._env,
            start_new_session=True,
            limit=LONGEST_LINE,
        )
        await self._read(self._process)
        return await self._process.wait()

    async def _read(self, process: Process) -> None:
        out = process.stdout
        while out is not None:
            try:
                line = await out.readline()
            except ValueError:
                # Longer than the limit: asyncio has dropped it.
                continue
            if not line:
                return
            self._log.line(self.name, line)


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
