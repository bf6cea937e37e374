"""PostgreSQL as the transport: workers claim due runs from the ledger itself, woken by NOTIFY."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self
from uuid import UUID

import structlog

from carillon.cloudevents import Envelope
from carillon.contracts import Event
from carillon.errors import PlatformUnavailableError
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.ledger import Ledger
from carillon.ledger.records import Delivery, Priority
from carillon.ledger.wakeups import Wakeups
from carillon.transports.port import PATIENT_EVERY, Consumer, Execute, Hear, pause_until

log = structlog.get_logger(__name__)

#: A claim is tried this often even if no notification came, because notifications may be lost.
POLL_SECONDS = 2.0
#: How long to leave the server alone after it refused.
AWAY_SECONDS = 0.5


async def _nothing() -> None:
    """Acknowledge nothing: the end in the ledger was the acknowledgement."""


class PostgresTransport:
    """The ledger's rows are the queue, so there is nothing to dispatch and nothing to lose."""

    name = "postgres"
    is_ledger = True

    def __init__(self, ledger: Ledger, wakeups: Wakeups, *, poll: float = POLL_SECONDS) -> None:
        self._ledger = ledger
        self._wakeups = wakeups
        self._poll = poll

    async def __aenter__(self) -> Self:
        """Nothing to connect: the ledger is open."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def dispatch(self, domain: str, deliveries: Sequence[Delivery]) -> list[UUID]:  # noqa: ARG002
        """Nothing to give: the rows are there."""
        return []

    async def redeliver(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:  # noqa: ARG002
        """Refuse: messages come with RabbitMQ only."""
        message = f"{queue} is a queue of RabbitMQ; set RABBIT_URL to hand its messages to it again, or discard them"
        raise PlatformUnavailableError(message)

    async def publish(self, envelopes: Sequence[Envelope]) -> list[UUID]:  # noqa: ARG002
        """Nothing to publish: the answering runs were written with the events."""
        return []

    async def consume(self, domain: str, worker: UUID, concurrency: int, execute: Execute) -> Consumer:
        """Claim runs whenever there is a free slot."""
        return _Claims(self._ledger, self._wakeups, domain, worker, concurrency, execute, self._poll)

    async def hear(self, domain: str, contracts: Sequence[type[Event]], hear: Hear) -> Consumer:  # noqa: ARG002
        """Nothing to hear: see `publish`."""
        return _Deaf()

    async def waiting(self, domain: str, priority: Priority) -> int | None:  # noqa: ARG002
        """The ledger knows."""
        return None

    def doubt(self, domain: str) -> None:
        """Nothing to doubt: a claim brings what there is."""

    async def fault(self) -> str | None:
        """None: the ledger reports for itself."""
        return None


class _Deaf:
    async def stop(self) -> None:
        """Nothing to stop."""


class _Claims:
    """Claims runs of one domain for one worker, as many as it has free slots."""

    def __init__(
        self,
        ledger: Ledger,
        wakeups: Wakeups,
        domain: str,
        worker: UUID,
        concurrency: int,
        execute: Execute,
        poll: float,
    ) -> None:
        self._ledger = ledger
        self._poll = poll
        self._domain = domain
        self._worker = worker
        self._slots = concurrency
        self._execute = execute
        self._running: set[asyncio.Task[None]] = set()
        self._started = 0
        self._woken = wakeups.subscribe(domain)
        self._loop = asyncio.create_task(self._claim_forever(), name=f"claims of {domain}")

    async def stop(self) -> None:
        self._loop.cancel()
        with suppress(asyncio.CancelledError):
            await self._loop

    async def _claim_forever(self) -> None:
        while True:
            # Cleared before the claim: what is submitted during it wakes us once more.
            self._woken.clear()
            try:
                began = time.monotonic()
                taken = await self._claim()
                pause = 0.0 if taken else await self._until_due(began)
            except SERVER_AWAY as error:
                log.warning("claim failed", domain=self._domain, error=str(error) or repr(error))
                pause = AWAY_SECONDS
            except Exception:
                # Whatever it was: a worker that stopped claiming would look healthy and do nothing.
                log.exception("claim failed", domain=self._domain)
                pause = AWAY_SECONDS
            if pause:
                # Not wait_for: on Python 3.11 it loses a cancellation that comes together with the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()

    async def _claim(self) -> int:
        """Take what there are slots for; returns how many were taken, and waits for a slot when all are busy."""
        free = self._slots - len(self._running)
        if free <= 0:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return 1
        # A share of the starts goes to whoever waits longest, so that no priority starves.
        patient = (self._started + free) // PATIENT_EVERY - self._started // PATIENT_EVERY
        # Shielded: a claim that is cancelled half-way would leave runs that say `running` and run nowhere.
        claim = asyncio.ensure_future(self._ledger.claim(self._domain, free, self._worker, patient=patient))
        try:
            deliveries = await asyncio.shield(claim)
        except asyncio.CancelledError:
            deliveries = await claim
            self._begin(deliveries)
            raise
        self._begin(deliveries)
        return len(deliveries)

    def _begin(self, deliveries: Sequence[Delivery]) -> None:
        self._started += len(deliveries)
        for delivery in deliveries:
            task: asyncio.Task[None] = asyncio.ensure_future(self._execute(delivery, _nothing))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _until_due(self, began: float) -> float:
        due = await self._ledger.next_due(self._domain)
        return self._poll if due is None else min(pause_until(due, time.monotonic() - began), self._poll)
