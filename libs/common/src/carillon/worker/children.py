"""The child processes in which plain functions run that may be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

import structlog

from carillon.worker.frames import framed, read_frame

log = structlog.get_logger(__name__)

#: A child that has nothing to do for so long ends.
IDLE_SECONDS = 60.0
#: After so many runs a child makes way for a new one: what leaks ends with it.
MOST_RUNS = 500
#: A child that nobody needs ends by itself within this time, and one that was killed is gone within it.
GONE_SECONDS = 5.0
#: What a child said last is read for so long after its end, also when a process that it left holds the socket open.
LAST_WORDS_SECONDS = 0.2


class Child:
    """One child process. It leads a group of its own, so that what its code started is killed with it."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._idle: asyncio.TimerHandle | None = None
        self.runs = 0
        self.was_killed = False
        #: Done when the process has ended.
        self.end = asyncio.create_task(self._watch(), name=f"child {process.pid}")

    @classmethod
    async def start(cls) -> Child:
        """Start a process; it imports nothing of the service before its first order."""
        ours, theirs = socket.socketpair()
        words = ["-P", "-m", "carillon.worker.child", str(theirs.fileno()), str(os.getpid())]
        try:
            with theirs:
                process = await create_subprocess_exec(
                    sys.executable, *words, stdin=DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
                )
            return cls(process, *await asyncio.open_unix_connection(sock=ours))
        except BaseException:
            # Without it a process that was started all the same ends.
            ours.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id, which is that of its group."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be given a run, as far as anybody knows."""
        return self._process.returncode is None and not self._reader.at_eof() and not self._writer.is_closing()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Write to it; what it does not read any more is not missed."""
        if not self._writer.is_closing():
            self._writer.write(framed(message))

    async def hear(self) -> dict[str, Any] | None:
        """The next that it says; None when it has gone."""
        return await read_frame(self._reader)

    def rest(self, dismiss: Callable[[Child], None]) -> None:
        """Wait for the next run, and not for ever."""
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, dismiss, self)

    def rise(self) -> None:
        """It is needed again."""
        if self._idle is not None:
            self._idle.cancel()

    def close(self) -> None:
        """Let it end by itself, which it does when it has nothing to do."""
        self.rise()
        self._writer.close()

    def kill(self) -> None:
        """End it and what it started, at once."""
        self.was_killed = True
        if self._process.returncode is None:
            self._kill_group()
        self._writer.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _watch(self) -> int:
        code = await self._process.wait()
        # What it started and left: nobody would end that.
        self._kill_group()
        await asyncio.sleep(LAST_WORDS_SECONDS)
        self._writer.close()
        return code


class Children:
    """As many child processes as there are runs in them at once, at most `most`; they stay warm for the next."""

    def __init__(self, domain: str, *, most: int, style: Literal["json", "console"] | None, level: str) -> None:
        self._world = {"domain": domain, "style": style, "level": level}
        self._idle: list[Child] = []
        self._ends: set[asyncio.Task[int]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.slots = asyncio.Semaphore(most)

    async def take(self, order: Mapping[str, Any], *, fresh: bool) -> Child:
        """Give an order to a child that rests, or to a new one."""
        child = None
        while self._idle and not fresh and child is None:
            found = self._idle.pop()
            found.rise()
            child = found if found.is_alive else None
        if child is None:
            child = await Child.start()
            self._ends.add(child.end)
            child.end.add_done_callback(self._ends.discard)
            order = {**order, "world": {**self._world, "path": sys.path}}
        child.runs += 1
        child.tell(order)
        return child

    def give_back(self, child: Child, *, is_spent: bool) -> None:
        """Keep a child for the next run, if it is fit for one."""
        if is_spent or self._is_closed or child.runs >= MOST_RUNS or not child.is_alive:
            self._dismiss(child)
            return
        self._idle.append(child)
        child.rest(self._dismiss)

    async def close(self) -> None:
        """End those that rest, and see them gone."""
        self._is_closed = True
        for child in list(self._idle):
            self._dismiss(child)
        if self._leaving:
            await asyncio.wait(self._leaving)
        if self._ends:
            await asyncio.wait(self._ends, timeout=GONE_SECONDS)

    def _dismiss(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)
        child.close()
        leaving = asyncio.create_task(_see_gone(child), name=f"end of child {child.pid}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


async def _see_gone(child: Child) -> None:
    await asyncio.wait({child.end}, timeout=GONE_SECONDS)
    if not child.end.done():
        child.kill()
