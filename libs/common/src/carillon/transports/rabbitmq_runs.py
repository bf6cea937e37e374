"""Taking runs from a domain's queues, from one connection to the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError

from carillon.ids import new_id
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.records import Priority
from carillon.transports.acknowledgements import Acknowledgements
from carillon.transports.port import Bury, Execute
from carillon.transports.rabbitmq_deliveries import Delivered, Take, TakingConnection
from carillon.transports.slots import Slots
from carillon.transports.wire import decode

log = structlog.get_logger(__name__)

CONNECT_SECONDS = 5
START_SECONDS = 10
#: How long to leave the broker, or the ledger, alone after it refused.
AWAY_SECONDS = 0.5
#: How often it is asked whether the queues are still served.
PROOF_SECONDS = 5.0
#: A message that killed this many consumers is dropped by the broker; its run is rescued, and failed, by the ledger.
DELIVERY_LIMIT = 20
QUEUE: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}


def queue_name(prefix: str, domain: str, priority: Priority) -> str:
    """The queue of a domain's runs of one priority; that of the normal ones has the shortest name."""
    name = f"{prefix}.{domain}.tasks"
    return name if priority is Priority.NORMAL else f"{name}.{priority.name.lower()}"


class RunConsumer:
    """Takes from the queues of a domain, and hands at most `concurrency` deliveries at a time to the worker.

    Each queue has a prefetch of its own, as large, so that what is urgent is at hand when a slot is free, however much
    of the rest waits. What is at hand and gets no slot for long is sent again by the sweeper, to whoever is free.

    It consumes on aiormq's channel, below aio-pika's messages and consumers, so that what executes has a task of its
    own, and a connection that is lost does not cancel it; and it takes the deliveries before aiormq reads them.
    """

    def __init__(
        self,
        connection: TakingConnection,
        queues: Mapping[Priority, str],
        concurrency: int,
        execute: Execute,
        bury: Bury,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._concurrency = concurrency
        self._execute = execute
        self._bury = bury
        self._acknowledgements = Acknowledgements()
        # The prefetch bounds what one channel hands over; what a lost one left executing counts as well.
        self._slots = Slots(concurrency)
        self._taken: set[asyncio.Task[None]] = set()
        self._channel: AbstractChannel | None = None
        self._tags: list[str] = []
        self._lost = asyncio.Event()
        self._arrived_at = time.monotonic()
        self._stopped = False
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take; raises what kept it from that for longer than it may."""
        patient_until = time.monotonic() + START_SECONDS
        while True:
            try:
                await self._consume()
                break
            except (OSError, TimeoutError, AMQPError) as error:
                # A broker closes the connection of who consumes a quorum queue while another connection is making it.
                if time.monotonic() > patient_until:
                    raise
                log.info("queues cannot be consumed yet", error=repr(error))
                await asyncio.sleep(AWAY_SECONDS)
        self._keeper = asyncio.create_task(self._keep_consuming(), name=f"consumer of {self._queues[Priority.NORMAL]}")

    async def stop(self) -> None:
        """Take no more; what is prefetched goes back when the connection closes."""
        self._stopped = True
        if self._keeper is not None:
            self._keeper.cancel()
        # A broker that is away has cancelled the consumer already.
        with suppress(Exception):
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._channel is not None:
                    for tag in self._tags:
                        await self._channel.basic_cancel(tag)

    async def _consume(self) -> None:
        """Open a channel, see that the queues exist, and take from them."""
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
            for tag in self._tags:
                self._connection.deliveries.takers.pop(tag.encode(), None)
            self._tags = []
            for priority, queue in self._queues.items():
                await channel.queue_declare(queue, durable=True, arguments=QUEUE)
                tag = f"carillon.{new_id()}"
                take = self._connection.deliveries.takers[tag.encode()] = partial(self._take, channel, priority)
                self._tags.append(tag)
                await channel.basic_consume(queue, partial(_take_read, take), consumer_tag=tag)

    def doubt(self) -> None:
        """Begin again if nothing has arrived for a while: what lies in the queues, or was sent anew, is not brought.

        RabbitMQ 3.10 keeps what it knows of a consumer whose queue was deleted right after it began, and takes the
        messages of the queue's successor for ones that it has delivered.
        """
        if self._is_idle():
            log.warning("nothing arrives, consumes anew", queues=list(self._queues.values()))
            self._arrived_at = time.monotonic()
            self._lost.set()

    def _is_idle(self) -> bool:
        return self._slots.free > 0 and time.monotonic() - self._arrived_at > PROOF_SECONDS

    def _lose(self, _: object) -> None:
        self._lost.set()

    async def _keep_consuming(self) -> None:
        """Begin again whenever the channel, or the queue, is gone."""
        # A cancellation alone may be forgotten, as in `carillon.transports.rabbitmq_events`.
        while not self._stopped:
            try:
                async with asyncio.timeout(PROOF_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                if await self._is_served():
                    continue
                log.warning("queues were not served", queues=list(self._queues.values()))
            if self._channel is not None:
                # Of a queue that was deleted, the channel is still there.
                with suppress(Exception):
                    await asyncio.wait_for(self._channel.close(), CONNECT_SECONDS)
            try:
                await self._consume()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                log.warning("queues cannot be consumed", queues=list(self._queues.values()), error=repr(error))
                self._lost.set()
                await asyncio.sleep(AWAY_SECONDS)
            else:
                log.info("consumes again", queues=list(self._queues.values()))

    async def _is_served(self) -> bool:
        """Whether the broker knows its consumers: it does not tell each one that its queue was deleted."""
        if self._channel is None:
            return False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                for queue in self._queues.values():
                    found = await self._channel.queue_declare(queue, durable=True, arguments=QUEUE)
                    if not found.consumer_count or (found.message_count and self._is_idle()):
                        return False
        except Exception as error:  # noqa: BLE001 - whatever it was, the channel is not to be relied on
            log.debug("queues not proved", error=repr(error))
            return False
        return True

    def _take(self, channel: AbstractChannel, priority: Priority, delivered: Delivered) -> None:
        self._arrived_at = time.monotonic()
        self._acknowledgements.take(channel, delivered.tag)
        task = asyncio.get_running_loop().create_task(self._settle(channel, priority, delivered))
        self._taken.add(task)
        task.add_done_callback(self._taken.discard)

    async def _settle(self, channel: AbstractChannel, priority: Priority, delivered: Delivered) -> None:
        await self._slots.take(priority)
        try:
            if not self._stopped:
                await self._deliver(channel, priority, delivered)
        finally:
            self._slots.give_back(priority)

    async def _deliver(self, channel: AbstractChannel, priority: Priority, delivered: Delivered) -> None:
        async def acknowledge() -> None:
            self._acknowledgements.done(channel, delivered.tag)

        try:
            delivery = decode(delivered.body)
        except ValueError as error:
            reason = f"not a run that Carillon can read: {error}"
            await self._bury_unreadable(self._queues[priority], delivered, reason)
            await acknowledge()
        else:
            await self._execute(delivery, acknowledge)

    async def _bury_unreadable(self, queue: str, delivered: Delivered, reason: str) -> None:
        headers = {name: str(value) for name, value in delivered.headers.items()}
        while True:
            try:
                await self._bury(queue, reason, delivered.body, headers)
            except SERVER_AWAY as error:
                log.warning("unreadable message waits for the ledger", error=repr(error))
                await asyncio.sleep(AWAY_SECONDS)
            else:
                log.warning("message buried", queue=queue, reason=reason[:500])
                return


async def _take_read(take: Take, message: DeliveredMessage) -> None:
    """Take what aiormq has read all the same."""
    take(Delivered.of(message))
