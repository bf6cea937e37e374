"""The sweeper: sends again from the ledger whatever the transport does not bring."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import structlog

from carillon.cloudevents import Envelope
from carillon.contracts.runs import RunEnded
from carillon.errors import TransientError
from carillon.ledger.catalogue import Hearer
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.ledger import Ended
from carillon.ledger.records import Delivery, Priority
from carillon.ledger.statements.rows import clock_of, gate_of
from carillon.platform import WINDOW, Platform, answer
from carillon.telemetry.metrics import Metrics
from carillon.transports.port import pause_until
from carillon.worker.receiver import Receiver

log = structlog.get_logger(__name__)

#: Pause between two looks at what is due; shorter when the ledger names an earlier moment.
TICK_SECONDS = 1.0
#: Pause between two rounds of the slow duties: expiry, rescue, events.
ROUND_SECONDS = 3.0
#: Pause between two looks at whether a day is over, and whether storage has what is too old.
PAST_SECONDS = 600.0
#: Runs moved by one statement.
BATCH = 1_000
#: An empty queue should have delivered within this time.
OVERDUE = timedelta(seconds=5)
#: A queue delivers in order: what was given this much earlier than what arrives now was lost.
OVERTAKEN = timedelta(seconds=10)
#: An event that is still not published, or not answered, after this time is taken care of.
LATE_EVENT = timedelta(seconds=5)
#: And no longer after this, but for who asked to be called back.
RECENT_EVENT = timedelta(hours=1)
#: An event that no workflow was given is looked at for this long.
UNTOLD = timedelta(minutes=1)
#: A run that the ledger gave to this worker is in its hands long before.
STRAY = timedelta(seconds=10)
#: A worker silent for this long is taken for dead; its heartbeat comes every two seconds.
SILENCE = timedelta(seconds=15)
#: A run that lost this many workers may be what kills them, and fails where it stands out; with the second it fails.
SUSPICIOUS, MOST_LOST = 3, 10


class Sweeper:
    """One for each worker process. Several of a domain share the work: rows that one holds, the others skip."""

    def __init__(self, platform: Platform, domain: str, receiver: Receiver, metrics: Metrics) -> None:
        self._platform = platform
        self._ledger = platform.ledger
        self._domain = domain
        self._receiver = receiver
        self._metrics = metrics
        #: By priority, what the transport's window had room for when it was counted, less what was given since.
        self._room: dict[Priority, int] = {}
        self._counted_at = -TICK_SECONDS
        #: Whether ends of runs may be left of a time when nobody was there yet who calls back.
        self._looks_back = True
        self._woken = platform.wakeups.subscribe(domain)

    async def run(self) -> None:
        """Sweep until cancelled; a sweep that fails is followed by the next."""
        async with asyncio.TaskGroup() as group:
            # Apart from each other, so that a duty that takes its time makes no run late.
            group.create_task(self._do_duties(), name="duties")
            if self._receiver.has_workflows:
                group.create_task(self._keep_ringing(), name="ringing")
            if not self._platform.transport.is_ledger:
                # Otherwise claims bring what is due.
                group.create_task(self._keep_feeding(), name="feeding")

    async def _do_duties(self) -> None:
        duties = (self._expire, self._rescue, self._reclaim, self._follow_up, self._publish, self._answer, self._tell)
        while True:
            for duty in (*duties, self._receiver.policies.refresh, self._keep_days):
                # Each by itself: one that fails must not keep the others from their work.
                async with _survived():
                    await duty()
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    async def _keep_feeding(self) -> None:
        while True:
            pause = TICK_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
            # Cleared before the look: what is submitted during it wakes us once more.
            self._woken.clear()
            async with _survived():
                pause = min(pause, await self._feed())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _keep_ringing(self) -> None:
        """End sleeps and waits of workflows when their time has come."""
        set_ = self._platform.wakeups.subscribe(clock_of(self._domain))
        while True:
            pause = TICK_SECONDS
            set_.clear()
            async with _survived():
                while await self._ledger.workflows.ring(self._domain):
                    pass
                due = await self._ledger.workflows.next_ring(self._domain)
                pause = TICK_SECONDS if due is None else min(TICK_SECONDS, pause_until(due, 0.0))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await set_.wait()

    async def _feed(self) -> float:
        """Give the transport what is due, the most urgent first; returns the seconds until something is."""
        began = time.monotonic()
        # Counting is the slow part, so that runs with delays would come late if it were done for each of them.
        if (began - self._counted_at >= TICK_SECONDS or 0 in self._room.values()) and not await self._count():
            return TICK_SECONDS
        for priority in sorted(Priority, reverse=True):
            due_now = partial(self._ledger.take_due, self._domain, priority)
            self._room[priority] = await self._send("due", self._room[priority], due_now)
        due = await self._ledger.next_due(self._domain)
        return TICK_SECONDS if due is None else pause_until(due, time.monotonic() - began)

    async def _count(self) -> bool:
        """Count the room in the transport's windows, and send again what it lost; False when it cannot say."""
        waiting = [await self._platform.transport.waiting(self._domain, priority) for priority in Priority]
        known = [number for number in waiting if number is not None]
        if len(known) < len(waiting):
            return False
        self._metrics.waiting.set(sum(known))
        for priority, number in zip(Priority, known, strict=True):
            before = datetime.fromtimestamp(self._receiver.watermarks[priority], UTC) - OVERTAKEN
            if number == 0:
                before = max(before, datetime.now(UTC) - OVERDUE)
            overdue = partial(self._ledger.take_overdue, self._domain, priority, before=before)
            self._room[priority] = await self._send("overdue", max(0, WINDOW - number), overdue)
        self._counted_at = time.monotonic()
        return True

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

    async def keep_past(self) -> None:
        """Index the days that are over and delete old results from storage, until cancelled.

        Beside the sweeps, because either may take minutes.
        """
        while True:
            # A worker that starts has other things to do, and so have all of them that start together.
            await asyncio.sleep(PAST_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
            try:
                if indexed := await self._ledger.index_days():
                    log.info("days that are over indexed", indexes=indexed)
                self._metrics.swept.labels("forgotten").inc(await self._ledger.forget_fires(self._kept))
                if forgotten := await self._platform.stored_results.forget(self._kept):
                    log.info("old results deleted from storage", results=forgotten)
            except (*SERVER_AWAY, asyncpg.PostgresError, TransientError) as error:
                log.warning("the past is not in order yet", error=repr(error))
            except Exception:
                log.exception("the past is not in order yet")

    @property
    def _kept(self) -> timedelta:
        """For how long what ended is kept."""
        return timedelta(hours=self._platform.settings.task_tracking_retention_hours)

    async def _keep_days(self) -> None:
        """Make the days to come, and drop those that nobody asks for any more."""
        try:
            await self._ledger.make_days()
            self._metrics.swept.labels("forgotten").inc(await self._ledger.forget(self._kept))
            for kept in (self._ledger.effects, self._ledger.last_good):
                self._metrics.swept.labels("forgotten").inc(await kept.forget())
        except asyncpg.LockNotAvailableError:
            log.info("days wait for a long reader of the ledger")

    async def _moved(self, reason: str, ended: Ended) -> int:
        """Count what a duty moved, and follow up what it ended."""
        self._metrics.swept.labels(reason).inc(ended.moved)
        if ended.moved:
            # Some of them may have had slots.
            self._platform.wakeups.tell(gate_of(self._domain))
        await self._ledger.followups.follow(ended.awaited)
        return ended.moved

    async def _expire(self) -> None:
        while await self._moved("expired", await self._ledger.expire(self._domain)) == BATCH:
            pass

    async def _rescue(self) -> None:
        orphans = await self._ledger.rescue(self._domain, SILENCE, suspicious=SUSPICIOUS, most=MOST_LOST)
        if rescued := await self._moved("rescued", orphans):
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

    async def _tell(self) -> None:
        """Tell workflows what a crash, or an older worker, left untold."""
        if self._receiver.has_workflows:
            found = await self._ledger.workflows.tell_untold(self._domain)
            found += await self._ledger.workflows.hear_unheard(UNTOLD)
            self._metrics.swept.labels("untold").inc(found)

    async def _publish(self) -> None:
        late = await self._ledger.unpublished(LATE_EVENT, BATCH)
        if late:
            await self._platform.publish(late)
            log.warning("events published again", events=len(late))

    async def _answer(self) -> None:
        if self._looks_back and not await self._platform.catalogue.hearers(RunEnded.type, self._domain):
            self._looks_back = False
        rows = await self._ledger.unheard(self._domain, LATE_EVENT, self._kept if self._looks_back else RECENT_EVENT)
        self._looks_back = self._looks_back and bool(rows)
        for row in rows:
            envelope = Envelope.model_construct(
                id=row["event_id"],
                source=row["source"],
                type=row["type"],
                time=row["time"],
                data=row["data"],
                traceparent=row["traceparent"],
            )
            heard = {task.name: task for task in await self._platform.catalogue.hearers(row["type"], self._domain)}
            await self._platform.submit(answer(envelope, heard.get(row["task"]) or Hearer(row["task"], self._domain)))
            self._metrics.swept.labels("unheard").inc()


@asynccontextmanager
async def _survived() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(60):
            yield
    except (*SERVER_AWAY, asyncpg.PostgresError) as error:
        log.warning("sweep failed", error=repr(error))
    except Exception:
        log.exception("sweep failed")
