"""The processes of a scenario: started for real, started again when they die, and none left at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from carillon.embedded import process
from chaos.errors import NotReadyError

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
#: How long a process may take from its start until it says that it is ready, in seconds.
READY_SECONDS = 60.0
#: A worker drains for 20 s at most, and closes its connections after that.
STOP_SECONDS = 35.0
LOOK_SECONDS = 0.05


@dataclass
class Member:
    """One process, whoever plays it at the moment."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    #: What its log says once it is ready.
    ready: str
    child: process.Child
    #: Whether it is started again when it ends.
    wanted: bool = True
    restarts: int = 0
    frozen: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether this start of it has said so."""
        return self.ready in self.child.log_text(2_000_000)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when it has ended already."""
        if not self.child.alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.child.pid, number)
            self.frozen = number == signal.SIGSTOP
            return True
        return False


@dataclass
class Crew:
    """Starts and keeps processes. `env` is what all of them are told."""

    folder: Path
    env: Mapping[str, str]
    members: list[Member] = field(default_factory=list)
    _keeper: asyncio.Task[None] | None = None

    def add(self, name: str, *command: str, ready: str = "worker started", **env: str) -> Member:
        """Start one more process of the Python of this environment."""
        log = self.folder / "logs" / f"{len(self.members):02}-{name}.log"
        whole = {**self.env, **env}
        member = Member(name, command, whole, log, ready, _start(name, command, whole, log))
        self.members.append(member)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="crew")
        return member

    def named(self, name: str) -> list[Member]:
        """The members of a domain."""
        return [member for member in self.members if member.name == name]

    def able(self, *names: str) -> list[Member]:
        """Those of these domains that work now."""
        return [m for m in self.members if m.name in names and m.child.alive and not m.frozen and m.is_ready]

    def any_ready(self, dice: random.Random, *names: str) -> Member | None:
        """One of those that work now, by lot."""
        able = self.able(*names)
        return dice.choice(able) if able else None

    async def ready(self) -> None:
        """Wait until all that are wanted are ready."""
        deadline = time.monotonic() + READY_SECONDS
        while waiting := [m for m in self.members if m.wanted and not m.is_ready]:
            if time.monotonic() > deadline:
                last = waiting[0].child.log_text(1_000).strip()
                message = f"{waiting[0].name} was not ready within {READY_SECONDS:.0f} s; it said: {last}"
                raise NotReadyError(message)
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self, member: Member) -> float:
        """Ask one to end and wait; returns the seconds that it took. Who does not end is killed."""
        member.wanted = False
        if member.frozen:
            member.signal(signal.SIGCONT)
        began = time.monotonic()
        await member.child.stop((signal.SIGTERM, STOP_SECONDS))
        return time.monotonic() - began

    async def stop_all(self) -> dict[str, float]:
        """Ask all that still run to end; the seconds of the slowest, by name."""
        running = [member for member in self.members if member.child.alive]
        took = await asyncio.gather(*(self.stop(member) for member in running))
        return {member.name: seconds for seconds, member in sorted(zip(took, running, strict=True), key=lambda t: t[0])}

    def kill_all(self) -> None:
        """End everything at once."""
        if self._keeper is not None:
            self._keeper.cancel()
        for member in self.members:
            member.wanted = False
            member.child.stop_now()

    @property
    def restarts(self) -> int:
        """How often a process was started again."""
        return sum(member.restarts for member in self.members)

    async def _keep(self) -> None:
        while True:
            for member in self.members:
                if member.wanted and not member.child.alive:
                    member.restarts += 1
                    member.frozen = False
                    member.child = _start(member.name, member.command, member.env, member.log)
            await asyncio.sleep(LOOK_SECONDS)


def _start(name: str, command: tuple[str, ...], env: Mapping[str, str], log: Path) -> process.Child:
    # What the caller has set for Carillon must not reach these processes.
    ours = ("RABBIT_", "TASK_", "CARILLON_", "GATEWAY_", "OTEL_", "DATABASE_", "REDIS_", "CHAOS_", "STORAGE_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    words = [sys.executable, *command]
    return process.start(name, words, log=log, death_signal=signal.SIGKILL, env={**inherited, **env}, cwd=ROOT)
