"""The sweeper: sends again from the ledger whatever the transport does not bring."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import structlog

from carillon.cloudevents import Envelope
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.ledger import Ended
from carillon.ledger.records import Delivery, Priority
from carillon.platform import WINDOW, Platform, answer
from carillon.telemetry.metrics import Metrics
from carillon.worker.receiver import Receiver

log = structlog.get_logger(__name__)

#: Pause between two looks at what is due; shorter when the ledger names an earlier moment.
TICK_SECONDS = 1.0
#: Pause when what is due does not fit into the transport's windows.
FULL_SECONDS = 0.2
#: Pause between two rounds of the slow duties: expiry, rescue, events.
ROUND_SECONDS = 3.0
#: Runs moved by one statement.
BATCH = 1_000
#: An empty queue should have delivered within this time.
OVERDUE = timedelta(seconds=5)
#: A queue delivers in order: what was given this much earlier than what arrives now was lost.
OVERTAKEN = timedelta(seconds=10)
#: An event that is still not published, or not answered, after this time is taken care of.
LATE_EVENT = timedelta(seconds=5)
#: A run that the ledger gave to this worker is in its hands long before.
STRAY = timedelta(seconds=10)
#: A worker silent for this long is taken for dead; its heartbeat comes every two seconds.
SILENCE = timedelta(seconds=15)
#: A run that lost this many workers is more likely to kill them than to be unlucky.
MOST_LOST = 3


class Sweeper:
    """One for each worker process. Several of a domain share the work: rows that one holds, the others skip."""

    def __init__(self, platform: Platform, domain: str, receiver: Receiver, metrics: Metrics) -> None:
        self._platform = platform
        self._ledger = platform.ledger
        self._domain = domain
        self._receiver = receiver
        self._metrics = metrics
        self._next_round = 0.0
        self._woken = platform.wakeups.subscribe(domain)

    async def run(self) -> None:
        """Sweep until cancelled; a sweep that fails is followed by the next."""
        while True:
            pause = TICK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
            try:
                async with asyncio.timeout(60):
                    pause = min(pause, await self._tick())
            except (*SERVER_AWAY, asyncpg.PostgresError) as error:
                log.warning("sweep failed", error=repr(error))
            except Exception:
                log.exception("sweep failed")
            await self._rest(pause)

    async def _rest(self, pause: float) -> None:
        if self._platform.transport.is_ledger:
            # Claims are woken by themselves; only the slow duties are left.
            await asyncio.sleep(ROUND_SECONDS)
            return
        try:
            async with asyncio.timeout(pause):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    async def _tick(self) -> float:
        """One look; returns the seconds until something is due."""
        until_due = TICK_SECONDS
        if not self._platform.transport.is_ledger:
            until_due = await self._feed()
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + ROUND_SECONDS
            duties = (self._expire, self._rescue, self._reclaim, self._follow_up, self._publish, self._answer)
            for duty in (*duties, self._keep_days):
                await duty()
        return until_due

    async def _feed(self) -> float:
        """Fill the transport's windows, the most urgent first."""
        waiting = [await self._feed_window(priority) for priority in sorted(Priority, reverse=True)]
        if None in waiting:
            return TICK_SECONDS
        self._metrics.waiting.set(sum(number for number in waiting if number is not None))
        due = await self._ledger.next_due(self._domain)
        return TICK_SECONDS if due is None else max(due, FULL_SECONDS if due <= 0 else 0.01)

    async def _feed_window(self, priority: Priority) -> int | None:
        """Fill one window; returns how many runs waited in it, None when the transport cannot say."""
        waiting = await self._platform.transport.waiting(self._domain, priority)
        if waiting is None:
            return None
        before = datetime.fromtimestamp(self._receiver.watermarks[priority], UTC) - OVERTAKEN
        if waiting == 0:
            before = max(before, datetime.now(UTC) - OVERDUE)
        room = max(0, WINDOW - waiting)
        overdue = partial(self._ledger.take_overdue, self._domain, priority, before=before)
        room = await self._send("overdue", room, overdue)
        await self._send("due", room, partial(self._ledger.take_due, self._domain, priority))
        return waiting

    async def _send(self, reason: str, room: int, take: Callable[..., Awaitable[list[Delivery]]]) -> int:
        """Send what `take` finds; returns the room that is left, 0 when the transport refuses."""
        sent, more = 0, True
        while more and room > sent:
            deliveries = await take(room=min(BATCH, room - sent))
            sent += len(deliveries)
            more = len(deliveries) == BATCH
            self._metrics.swept.labels(reason).inc(len(deliveries))
            if not await self._platform.dispatch(self._domain, deliveries):
                return 0
        if sent and reason == "overdue":
            log.warning("runs sent again", runs=sent)
            self._platform.transport.doubt(self._domain)
        return room - sent

    async def _keep_days(self) -> None:
        """Make the days to come, and drop those that nobody asks for any more."""
        kept = timedelta(hours=self._platform.settings.task_tracking_retention_hours)
        try:
            await self._ledger.make_days()
            self._metrics.swept.labels("forgotten").inc(await self._ledger.forget(kept))
        except asyncpg.LockNotAvailableError:
            log.info("days wait for a long reader of the ledger")

    async def _moved(self, reason: str, ended: Ended) -> int:
        """Count what a duty moved, and follow up what it ended."""
        self._metrics.swept.labels(reason).inc(ended.moved)
        await self._ledger.followups.follow(ended.awaited)
        return ended.moved

    async def _expire(self) -> None:
        await self._moved("expired", await self._ledger.expire(self._domain))

    async def _rescue(self) -> None:
        if rescued := await self._moved("rescued", await self._ledger.rescue(self._domain, SILENCE, MOST_LOST)):
            log.warning("runs of lost workers rescued", runs=rescued)

    async def _reclaim(self) -> None:
        if self._platform.transport.is_ledger:
            await self._ledger.take_back(self._domain)
        in_hand = list(self._receiver.running)
        strays = await self._ledger.hand_back(self._receiver.worker, but=in_hand, age=STRAY)
        if await self._moved("reclaimed", strays):
            log.warning("runs reclaimed whose start was not heard of", runs=strays.moved)

    async def _follow_up(self) -> None:
        self._metrics.swept.labels("followed").inc(await self._ledger.followups.sweep())

    async def _publish(self) -> None:
        late = await self._ledger.unpublished(LATE_EVENT, BATCH)
        if late:
            await self._platform.publish(late)
            log.warning("events published again", events=len(late))

    async def _answer(self) -> None:
        for row in await self._ledger.unheard(self._domain, LATE_EVENT):
            envelope = Envelope.model_construct(
                id=row["event_id"],
                source=row["source"],
                type=row["type"],
                time=row["time"],
                data=row["data"],
                traceparent=row["traceparent"],
            )
            await self._platform.submit(answer(envelope, self._domain, row["task"]))
            self._metrics.swept.labels("unheard").inc()
