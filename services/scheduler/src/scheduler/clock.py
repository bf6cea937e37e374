"""The clock: a loop that wakes when the next schedule is due, at least once a second, and never ends by an error."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import structlog

from carillon.ledger.group_commit import SERVER_AWAY
from scheduler.instruments import Instruments
from scheduler.leadership import Leadership
from scheduler.round import Result, Round, utc_now

if TYPE_CHECKING:
    from carillon.ledger.records import NewEvent
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: New, resumed and changed schedules are noticed within this long.
TICK_SECONDS = 1.0
#: A tick that has not ended by then is given up and begun again.
DEADLINE_SECONDS = 15.0
#: Without a tick for this long the process is not ready.
SILENCE_SECONDS = 5.0
#: After a failed tick, so that a server that comes back is not met by a storm.
REST_SECONDS = 0.25
#: Schedules decided in one transaction.
MOST = 500
#: A schedule that could not be followed is tried again after this long, even if nobody changed it.
MEND_SECONDS = 30.0
#: Batches of events on their way to the transport; beyond that the sweepers publish.
MOST_PUBLISHING = 100
#: How long events may still go out when the process stops; the sweepers publish the rest.
STOP_SECONDS = 3.0

#: Errors that say something about one row of the batch, and not about the server.
OF_THE_BATCH = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, LookupError)


class Clock:
    """Fires what is due while this process leads. Give `run` to the service as background, `fault` as probe."""

    def __init__(self, *, grace: timedelta, now: Callable[[], datetime] = utc_now) -> None:
        self._grace = grace
        self._now = now
        self._ticked_at = time.monotonic()
        self._trouble: str | None = None
        self._broken: dict[str, float] = {}
        self._most = MOST
        self._publishing: set[asyncio.Task[None]] = set()

    def fault(self) -> str | None:
        """Why schedules may be standing still, as a sentence; None while the clock ticks."""
        silent = time.monotonic() - self._ticked_at
        if silent < SILENCE_SECONDS:
            return None
        why = self._trouble or "nothing failed, so the process is blocked; restart it"
        return f"the clock has not ticked for {silent:.0f} s ({why})"

    async def run(self, platform: Platform, metrics: Metrics, stop: asyncio.Event) -> None:
        """Tick until `stop` is set, then let another scheduler lead."""
        leadership = Leadership(platform.settings.database_url.get_secret_value())
        instruments = Instruments(metrics)
        rounds = Round(platform, self._grace)
        self._ticked_at = time.monotonic()
        try:
            while not stop.is_set():
                pause = await self._tick_safely(platform, leadership, rounds, instruments)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        finally:
            await leadership.resign()
            if self._publishing:
                await asyncio.wait(self._publishing, timeout=STOP_SECONDS)

    async def _tick_safely(
        self, platform: Platform, leadership: Leadership, rounds: Round, instruments: Instruments
    ) -> float:
        """Seconds until the next tick, whatever happens in this one."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                pause = await self._tick(platform, leadership, rounds, instruments)
        except Exception as error:  # noqa: BLE001 - a clock that stops is worse than any error
            self._note(error)
            instruments.failed_ticks.inc()
            pause = REST_SECONDS
        else:
            self._ticked(instruments)
        instruments.leading.set(leadership.epoch is not None)
        return pause

    async def _tick(self, platform: Platform, leadership: Leadership, rounds: Round, instruments: Instruments) -> float:
        epoch = await leadership.hold()
        if epoch is None:
            return TICK_SECONDS
        result = await self._decide(rounds, epoch)
        self._publish(platform, result.events)
        self._report(result, instruments)
        if result.full:
            return 0.0
        if result.next_due is None:
            return TICK_SECONDS
        # A millisecond more, so that it is due when we look.
        return min(max((result.next_due - self._now()).total_seconds() + 0.001, 0.0), TICK_SECONDS)

    async def _decide(self, rounds: Round, epoch: int) -> Result:
        started = time.monotonic()
        self._broken = {key: until for key, until in self._broken.items() if until > started}
        try:
            result = await rounds.decide(self._now(), epoch, list(self._broken), self._most)
        except OF_THE_BATCH:
            # One row spoils the batch: smaller ones until it is alone, and the others go on.
            self._most = max(1, self._most // 4)
            raise
        self._most = MOST
        self._broken |= dict.fromkeys(result.broken, started + MEND_SECONDS)
        return result

    def _report(self, result: Result, instruments: Instruments) -> None:
        instruments.broken.set(len(self._broken))
        for key, why in result.broken.items():
            log.error("schedule cannot be followed", schedule=key.rpartition("@")[0], reason=why)
        left_out: Counter[tuple[str, str]] = Counter()
        now = self._now()
        for fire in result.fires:
            decision = fire.decision
            instruments.fires.labels(decision.outcome.value).inc()
            if fire.event_id is None:
                left_out[fire.schedule, decision.outcome.value] += 1
                continue
            late = (now - decision.fire_at).total_seconds()
            instruments.lateness.observe(late)
            fire_at = decision.fire_at.isoformat()
            log.info("schedule fired", schedule=fire.schedule, fire_at=fire_at, late_ms=round(late * 1000))
        for (schedule, outcome), fires in left_out.items():
            log.info("fires left out", schedule=schedule, outcome=outcome, fires=fires)

    def _publish(self, platform: Platform, events: Sequence[NewEvent]) -> None:
        """Beside the clock: a transport that is slow makes no other schedule late."""
        if not events or platform.ledger.carries_events or len(self._publishing) >= MOST_PUBLISHING:
            return
        task = asyncio.create_task(_publish(platform, events), name="publish fires")
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    def _ticked(self, instruments: Instruments) -> None:
        if self._trouble is not None:
            log.info("clock ticks again")
        self._trouble = None
        self._ticked_at = time.monotonic()
        instruments.last_tick.set_to_current_time()

    def _note(self, error: Exception) -> None:
        """Log the first failure of an outage; a bug with its traceback."""
        trouble = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if trouble != self._trouble:
            away = isinstance(error, (*SERVER_AWAY, asyncpg.PostgresError))
            log.warning("clock does not tick and tries again", error=trouble, exc_info=None if away else error)
        self._trouble = trouble


async def _publish(platform: Platform, events: Sequence[NewEvent]) -> None:
    try:
        await platform.publish(events)
    except Exception as error:  # noqa: BLE001 - they are in the ledger, and the sweepers publish what is there
        log.warning("events of fires wait for the sweeper", events=len(events), error=repr(error))
