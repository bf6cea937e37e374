"""The gatekeeper: lets in, by the limits, what waits for them in the ledger."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import asyncpg
import structlog

from carillon import clock
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.statements.rows import gate_of
from carillon.platform import Platform
from carillon.telemetry.metrics import Metrics
from carillon.transports.port import PATIENT_EVERY

log = structlog.get_logger(__name__)

#: Pause between two looks of a domain with limits, if nothing was heard of and the ledger names no earlier moment.
TICK_SECONDS = 1.0
#: For how many times as long one without is left alone: a new version of it may have some.
UNLIMITED_TICKS = 3
#: Looks that let nothing in, one after the other, though there are keys that were not looked at; then the next wait for
#: the next tick. For how many times as long as such a look takes the ledger is left alone.
FRUITLESS = 10
FRUITLESS_REST = 4
#: Pause while another worker lets in; doubled from the first to the second.
BUSY_SECONDS = (0.005, 0.5)
#: Of the runs that wait no more are counted for the metrics.
MOST_COUNTED = 10_000


class Gatekeeper:
    """One for each worker process. Several of a domain take turns: one at a time lets in, under a lock of the ledger.

    It looks when a run is submitted that has to be let in, when one ends that had a slot, when the next start of a rate
    is free, and at each `tick`, because a notification may be lost with its connection.
    """

    def __init__(self, platform: Platform, domain: str, metrics: Metrics, *, tick: float = TICK_SECONDS) -> None:
        self._admission = platform.ledger.admission
        self._domain = domain
        self._metrics = metrics
        self._tick = tick
        self._limited = True
        self._fruitless = 0
        self._fruitful = 0
        self._busy = BUSY_SECONDS[0]
        self._next_duties = 0.0
        self._woken = platform.wakeups.subscribe(gate_of(domain))

    async def prepare(self) -> None:
        """Before this worker takes a run: what waited for a worker starts now, and not when it was let in."""
        await self._admission.charge(self._domain)

    async def run(self) -> None:
        """Let in until cancelled; a look that fails is followed by the next."""
        while True:
            pause = self._tick
            # Cleared before the look: what comes during it is looked at once more.
            self._woken.clear()
            began = clock.monotonic()
            try:
                async with asyncio.timeout(60):
                    pause = await self._look()
            except (*SERVER_AWAY, asyncpg.PostgresError) as error:
                log.warning("nothing let in", error=repr(error))
            except Exception:
                log.exception("nothing let in")
            # However often it is woken, it leaves the ledger alone for as long as a look takes, and longer where one
            # reads much and finds nothing.
            rest = (clock.monotonic() - began) * (FRUITLESS_REST if self._fruitless else 1)
            await asyncio.sleep(min(rest, TICK_SECONDS))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _look(self) -> float:
        """Let in what can be; returns the seconds until there may be more."""
        if clock.monotonic() >= self._next_duties:
            await self._do_duties()
        # Counted are looks that let in, so that none of these turns is spent on a look that finds nothing.
        patient = self._fruitful % PATIENT_EVERY == PATIENT_EVERY - 1
        admitted = await self._admission.admit(self._domain, patient=patient)
        if admitted is None:
            # Whoever lets in may have begun before what we were woken for.
            self._busy = min(2 * self._busy, BUSY_SECONDS[1])
            return self._busy * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        self._busy = BUSY_SECONDS[0]
        self._metrics.swept.labels("admitted").inc(admitted.runs)
        self._fruitful += admitted.runs > 0
        self._fruitless = self._fruitless + 1 if admitted.more and not admitted.runs else 0
        if admitted.more and self._fruitless < FRUITLESS:
            return 0.0
        self._fruitless = min(self._fruitless, 1)
        tick = self._tick if self._limited or admitted.runs else UNLIMITED_TICKS * self._tick
        # A moment later, because the ledger has a clock of its own.
        return tick if admitted.next_in is None else min(tick, admitted.next_in + 0.001)

    async def _do_duties(self) -> None:
        self._limited = await self._admission.limited(self._domain)
        if self._limited:
            await self._admission.charge(self._domain)
        self._next_duties = clock.monotonic() + (TICK_SECONDS if self._limited else UNLIMITED_TICKS * TICK_SECONDS)
        self._metrics.gated.set(await self._admission.waiting(self._domain, MOST_COUNTED))
