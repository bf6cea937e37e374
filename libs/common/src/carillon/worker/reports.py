"""Writing what attempts report of their progress: rarely enough to cost nothing, and the last word always."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from carillon import clock
from carillon.run import Run

log = structlog.get_logger(__name__)

#: Between two writes of one run.
PAUSE_SECONDS = 1.0
#: The end of an attempt waits so long for its last report, and no longer.
LAST_SECONDS = 2.0

#: Writes a report, as JSON text, into the ledger.
Write = Callable[[str], Awaitable[None]]


class Reports:
    """What one attempt reports. Nothing here begins before the first report, and nothing here can fail the attempt."""

    def __init__(self, run: Run, write: Write) -> None:
        self._run = run
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._written: str | None = None
        self._wrote_at = -PAUSE_SECONDS
        self._is_due = False
        self._writer: asyncio.Task[None] | None = None

    def heard(self) -> None:
        """Something was reported. Called from any thread; several reports in a row are one call of the loop."""
        if self._is_due:
            return
        self._is_due = True
        # After the loop is closed nobody writes any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._begin)

    async def last(self) -> None:
        """Write what has not been written yet."""
        self.drop()
        if self._writer is not None:
            await asyncio.wait({self._writer})
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._put()
        except Exception as error:  # noqa: BLE001 - a report must not keep an attempt from ending
            log.warning("progress not written", error=repr(error))

    def drop(self) -> None:
        """Write no more, but for what is under way."""
        if self._writer is not None:
            self._writer.cancel()

    def _begin(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = self._loop.create_task(self._write_on(), name="progress")

    async def _write_on(self) -> None:
        while self._is_due:
            await asyncio.sleep(max(0.0, self._wrote_at + PAUSE_SECONDS - clock.monotonic()))
            self._is_due = False
            self._wrote_at = clock.monotonic()
            try:
                await self._put()
            except Exception as error:  # noqa: BLE001 - nor may it disturb one that goes on
                log.warning("progress not written", error=repr(error))

    async def _put(self) -> None:
        report = self._run.progress_json
        if report is not None and report != self._written:
            await self._write(report)
            self._written = report
