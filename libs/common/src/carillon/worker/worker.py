"""One worker process of a domain: enrolment, heartbeat, letting in, taking, sweeping, a drain that loses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import asyncpg
import structlog

from carillon.contracts import Event
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.platform import Platform
from carillon.transports.port import Consumer
from carillon.worker.gatekeeper import Gatekeeper
from carillon.worker.receiver import Receiver
from carillon.worker.sweeper import Sweeper

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 2.0
#: What outlasts a drain has this long to end once it is cancelled; code that does not is left behind, and its run is
#: handed back.
LEAVE_SECONDS = 2.0


class Worker:
    """Keeps one receiver fed, and its runs from being rescued by others."""

    def __init__(
        self,
        platform: Platform,
        domain: str,
        receiver: Receiver,
        sweeper: Sweeper,
        gatekeeper: Gatekeeper,
        *,
        hears: Sequence[type[Event]],
        concurrency: int,
    ) -> None:
        self.id = receiver.worker
        self._platform = platform
        self._domain = domain
        self._receiver = receiver
        self._sweeper = sweeper
        self._gatekeeper = gatekeeper
        self._hears = hears
        self._concurrency = concurrency
        self._asked = platform.wakeups.subscribe(str(self.id))

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain."""
        await self._platform.ledger.make_days()
        await self._platform.ledger.enrol(
            self.id, self._domain, socket.gethostname(), os.getpid(), version("carillon-common"), self._concurrency
        )
        await self._gatekeeper.prepare()
        duties = [
            asyncio.create_task(self._heartbeat(), name="heartbeat"),
            asyncio.create_task(self._obey(), name="obey"),
        ]
        consumers: list[Consumer] = []
        try:
            transport = self._platform.transport
            if self._hears:
                hear = self._hear
                consumers.append(await transport.hear(self._domain, self._hears, hear))
            consumers.append(await transport.consume(self._domain, self.id, self._concurrency, self._receiver.execute))
            # Not before: it asks for the same queues that the consumer makes.
            duties.append(asyncio.create_task(self._sweeper.run(), name="sweeper"))
            duties.append(asyncio.create_task(self._sweeper.keep_past(), name="past"))
            duties.append(asyncio.create_task(self._gatekeeper.run(), name="gatekeeper"))
            log.info("worker started", transport=transport.name, concurrency=self._concurrency)
            await stop.wait()
        finally:
            try:
                await self._drain(consumers)
            finally:
                for duty in duties:
                    duty.cancel()
                await asyncio.gather(*duties, return_exceptions=True)

    async def _hear(self, envelope: object) -> None:
        await self._platform.hear(self._domain, envelope)  # type: ignore[arg-type]

    async def _heartbeat(self) -> None:
        while True:
            with suppress(*SERVER_AWAY):
                await self._platform.ledger.heartbeat(self.id, len(self._receiver.running))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _obey(self) -> None:
        """Cancel what somebody wants cancelled: when the ledger says so, and often, in case that was not heard."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._asked.wait()
            self._asked.clear()
            try:
                await self._receiver.obey()
            except (*SERVER_AWAY, asyncpg.PostgresError) as error:
                log.warning("cancellations not read", error=repr(error))

    async def _drain(self, consumers: Sequence[Consumer]) -> None:
        try:
            for consumer in consumers:
                await consumer.stop()
            await self._end_running()
        finally:
            # Also when whoever stops us has less patience: a run that is not handed back waits for a rescue, and counts
            # as one that lost its worker.
            await self._hand_back()
            await self._receiver.close()

    async def _end_running(self) -> None:
        if not (running := set(self._receiver.running.values())):
            return
        patience = self._platform.settings.carillon_drain_seconds
        log.info("worker draining", runs=len(running), seconds=patience)
        try:
            await asyncio.wait(running, timeout=patience)
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=LEAVE_SECONDS)

    async def _hand_back(self) -> None:
        try:
            handed_back = await self._platform.ledger.hand_back(self.id)
            await self._platform.ledger.retire(self.id)
            await self._platform.ledger.followups.follow(handed_back.awaited)
            log.info("worker stopped", handed_back=handed_back.moved)
        except SERVER_AWAY as error:
            log.warning("worker stopped without the ledger; its runs are rescued by others", error=repr(error))
