"""Taking runs from a domain's queue, from one connection to the next."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from aio_pika.abc import AbstractRobustConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from carillon.ledger.group_commit import SERVER_AWAY
from carillon.transports.acknowledgements import Acknowledgements
from carillon.transports.port import Bury, Execute
from carillon.transports.wire import decode

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5
#: How long to leave the broker, or the ledger, alone after it refused.
AWAY_SECONDS = 0.5
#: A message that killed this many consumers is dropped by the broker; its run is rescued, and failed, by the ledger.
DELIVERY_LIMIT = 20
QUEUE: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


class RunConsumer:
    """Takes from one queue, at most `concurrency` deliveries at a time, and hands them to the worker.

    It consumes on aiormq's channel, below aio-pika's messages and consumers, for two reasons: what executes has a task
    of its own, so that a connection that is lost does not cancel it; and a message object for each run would cost a
    tenth of all that a run costs.
    """

    def __init__(
        self, connection: AbstractRobustConnection, queue: str, concurrency: int, execute: Execute, bury: Bury
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._concurrency = concurrency
        self._execute = execute
        self._bury = bury
        self._acknowledgements = Acknowledgements()
        # The prefetch bounds what one channel hands over; what a lost one left executing counts as well.
        self._slots = asyncio.Semaphore(concurrency)
        self._taken: set[asyncio.Task[None]] = set()
        self._channel: AbstractChannel | None = None
        self._tag: str | None = None
        self._lost = asyncio.Event()
        self._stopped = False
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take."""
        await self._consume()
        self._keeper = asyncio.create_task(self._keep_consuming(), name=f"consumer of {self._queue}")

    async def stop(self) -> None:
        """Take no more; what is prefetched goes back when the connection closes."""
        self._stopped = True
        if self._keeper is not None:
            self._keeper.cancel()
        # A broker that is away has cancelled the consumer already.
        with suppress(Exception):
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._channel is not None and self._tag is not None:
                    await self._channel.basic_cancel(self._tag)

    async def _consume(self) -> None:
        """Open a channel, see that the queue exists, and take from it."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._connection.ready()
            transport = self._connection.transport
            if transport is None:
                raise ConnectionError("RabbitMQ is not connected")
            self._channel = channel = await transport.connection.channel(publisher_confirms=False)
            self._lost.clear()
            channel.closing.add_done_callback(self._lose)
            channel.on_consumer_cancel_callbacks.add(self._lose)
            await channel.basic_qos(prefetch_count=self._concurrency)
            await channel.queue_declare(self._queue, durable=True, arguments=QUEUE)
            self._tag = (await channel.basic_consume(self._queue, self._take)).consumer_tag

    def _lose(self, _: object) -> None:
        self._lost.set()

    async def _keep_consuming(self) -> None:
        """Begin again whenever the channel, or the queue, is gone."""
        while True:
            await self._lost.wait()
            if self._channel is not None:
                # Of a queue that was deleted, the channel is still there.
                with suppress(Exception):
                    await asyncio.wait_for(self._channel.close(), CONNECT_SECONDS)
            try:
                await self._consume()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                log.warning("queue cannot be consumed", queue=self._queue, error=repr(error))
                self._lost.set()
                await asyncio.sleep(AWAY_SECONDS)
            else:
                log.info("consumes again", queue=self._queue)

    async def _take(self, message: DeliveredMessage) -> None:
        self._acknowledgements.take(message)
        task = asyncio.get_running_loop().create_task(self._settle(message))
        self._taken.add(task)
        task.add_done_callback(self._taken.discard)

    async def _settle(self, message: DeliveredMessage) -> None:
        async with self._slots:
            if self._stopped:
                return

            async def acknowledge() -> None:
                self._acknowledgements.done(message)

            try:
                delivery = decode(message.body)
            except ValueError as error:
                await self._bury_unreadable(message, f"not a run that Carillon can read: {error}")
                await acknowledge()
                return
            await self._execute(delivery, acknowledge)

    async def _bury_unreadable(self, message: DeliveredMessage, reason: str) -> None:
        headers = {name: str(value) for name, value in (message.header.properties.headers or {}).items()}
        while True:
            try:
                await self._bury(self._queue, reason, message.body, headers)
            except SERVER_AWAY as error:
                log.warning("unreadable message waits for the ledger", error=repr(error))
                await asyncio.sleep(AWAY_SECONDS)
            else:
                log.warning("message buried", queue=self._queue, reason=reason[:500])
                return
