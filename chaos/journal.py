"""Files that several processes append to, and that survive the death of each: one line is one write."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path

#: One write below this many bytes is whole or not there, whoever is killed.
MOST_BYTES = 4096


class Journal:
    """Appends lines of JSON. `at` is when, in seconds of the Unix clock."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, **facts: Any) -> None:
        """Append one line; raises `ValueError` when it is too long to be one write."""
        line = orjson.dumps({"what": what, "at": time.time(), **facts}) + b"\n"
        if len(line) >= MOST_BYTES:
            raise ValueError(f"a line of {len(line)} bytes is no single write; the most is {MOST_BYTES}")
        os.write(self._descriptor, line)

    def sync(self) -> None:
        """Have the disk hold what was written."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._descriptor)


class SyncedJournal(Journal):
    """A journal whose writer goes on only when the line is on the disk; those who wait share one fsync."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._syncing: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def put(self, what: str, **facts: Any) -> None:
        """Append one line and wait for the disk."""
        self.write(what, **facts)
        if self._next is None:
            self._next = asyncio.create_task(self._sync_after(self._syncing))
        await self._next

    async def _sync_after(self, running: asyncio.Task[None] | None) -> None:
        # An fsync that has begun may have missed the line; the one that begins after it has not.
        if running is not None:
            await asyncio.wait([running])
        self._syncing, self._next = self._next, None
        await asyncio.to_thread(self.sync)


class Tail:
    """Reads a journal while others write it; each line once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0

    def lines(self) -> list[dict[str, Any]]:
        """The whole lines that were added since the last call."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as source:
            source.seek(self._offset)
            added = source.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [orjson.loads(line) for line in whole.splitlines()]


def read(file: Path) -> list[dict[str, Any]]:
    """Every line of a journal; raises `ValueError` where one is no JSON, which a single write cannot leave behind."""
    return Tail(file).lines()
