"""The live picture of the platform: read once for all who look, and only while someone does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog
from sqlalchemy import select

from carillon.ledger.history import Row, Search
from carillon.ledger.tables import events
from carillon.platform import Platform
from carillon.telemetry.metrics import Metrics
from gateway.api.overview_views import DomainView, LimitedTaskView, Overview, WorkerView
from gateway.api.run_views import run_summary
from gateway.api.schedule_views import schedule_view
from gateway.api.views import EventView, HoldView, limits_view
from gateway.errors import UNAVAILABLE, ProblemError
from gateway.problems import is_away

log = structlog.get_logger(__name__)

DAY = timedelta(days=1)
#: The ledger is read no more often than this, and less often where reading takes long.
PAUSE_SECONDS = 1.0
#: Reading costs at most this share of the time.
SHARE = 0.1
#: Counting touches a day of runs, so it is done less often than the rest.
COUNT_SECONDS = 5.0
#: A silent stream says that it lives, so that proxies do not close it.
KEEP_ALIVE_SECONDS = 15.0
_EVENT_COLUMNS = [events.c[name] for name in EventView.__struct_fields__]


class Picture:
    """Reads the overview; counts and the limits of tasks are some seconds old."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._counts: list[Row] = []
        self._limited: list[Row] = []
        self._counted_at = float("-inf")

    async def read(self) -> Overview:
        """What runs, waits, failed and is scheduled now."""
        history, since = self._platform.history, datetime.now(UTC) - DAY
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            self._counts = await history.count_by_state(since)
            self._limited = [row for row in await self._platform.catalogue.tasks() if "limits" in row["policy"]]
            self._counted_at = time.monotonic()
        failed = Search(states=["failed", "retrying"], since=since, limit=10)
        return Overview(
            transport="postgres" if self._platform.transport.is_ledger else "rabbitmq",
            domains=_domains(self._counts, await self._platform.catalogue.domains(), self._limited),
            running=[run_summary(row) for row in await history.search(Search(states=["running"], limit=20))],
            failed=[run_summary(row) for row in await history.search(failed)],
            recent=[run_summary(row) for row in await history.search(Search(limit=20))],
            schedules=[schedule_view(row) for row in (await self._platform.schedules.all())[:50]],
            workers=[WorkerView.of(row) for row in (await history.live_workers())[:50]],
            events=await self._events(),
            holds=[HoldView.of(hold._asdict()) for hold in await self._platform.ledger.steering.holds()],
        )

    async def _events(self) -> list[EventView]:
        # Without their data, which may be large.
        newest = select(*_EVENT_COLUMNS).order_by(events.c.recorded_at.desc(), events.c.id.desc()).limit(15)
        async with self._platform.engine.connect() as connection:
            return [EventView.of(dict(row)) for row in (await connection.execute(newest)).mappings()]


def _domains(counts: list[Row], registered: list[Row], limited: list[Row]) -> list[DomainView]:
    by_domain: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in registered:
        by_domain[row["name"]] = Counter()
    for row in counts:
        by_domain[row["domain"]][row["state"]] += row["count"]
    limits = {row["name"]: row["concurrency"] for row in registered}
    tasks: defaultdict[str, list[LimitedTaskView]] = defaultdict(list)
    for row in limited:
        if (found := limits_view(row["policy"])) is not None:
            tasks[row["domain"]].append(LimitedTaskView(name=row["name"], limits=found))
    return [
        DomainView(name=name, counts=dict(counted), limit=limits.get(name), limited_tasks=tasks[name])
        for name, counted in sorted(by_domain.items())
    ]


class Live:
    """One reader of the picture and its bounded crowd of listeners. `run` goes beside the server until it stops."""

    def __init__(self, most_listeners: int) -> None:
        self._most = most_listeners
        self._listeners = 0
        self._wanted = asyncio.Event()
        self._changed = asyncio.Condition()
        self._frame = b""
        self._version = 0
        self._closed = False

    async def run(self, platform: Platform, _: Metrics, stop: asyncio.Event) -> None:
        """Read while someone listens; when `stop` is set, end every stream."""
        reading = asyncio.create_task(self._read_forever(Picture(platform)), name="live picture")
        await stop.wait()
        reading.cancel()
        await asyncio.wait([reading])
        self._closed = True
        await self._show(b"")

    async def follow(self) -> AsyncIterator[bytes]:
        """Server-sent events: the picture now, and again whenever it changes; raises `ProblemError` when it is full."""
        if self._listeners >= self._most:
            message = "too many listeners; read /api/v1/overview from time to time instead"
            raise ProblemError(UNAVAILABLE, message, headers={"Retry-After": "5"})
        return self._frames()

    async def _frames(self) -> AsyncIterator[bytes]:
        self._listeners += 1
        self._wanted.set()
        # A picture that was left over from earlier listeners is not shown.
        seen = 0 if self._frame else self._version
        try:
            while not self._closed:
                if await self._newer_than(seen):
                    seen = self._version
                    yield self._frame
                else:
                    yield b": still here\n\n"
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._wanted.clear()
                self._frame = b""

    async def _newer_than(self, seen: int) -> bool:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS), self._changed:
                await self._changed.wait_for(lambda: self._version > seen)
        except TimeoutError:
            return False
        return True

    async def _show(self, frame: bytes) -> None:
        async with self._changed:
            self._frame = frame
            self._version += 1
            self._changed.notify_all()

    async def _read_forever(self, picture: Picture) -> None:
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            try:
                frame = _frame("overview", await picture.read())
            except Exception as error:  # noqa: BLE001 - listeners are told, and the next reading may succeed
                if not is_away(error):
                    log.warning("live picture not read", error=repr(error))
                frame = _frame("away", {"detail": "PostgreSQL does not answer; this picture is old"})
            if frame != self._frame:
                await self._show(frame)
            took = time.monotonic() - began
            await asyncio.sleep(max(PAUSE_SECONDS, took / SHARE))


def _frame(event: str, data: Any) -> bytes:
    return b"event: " + event.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
