"""RabbitMQ as the transport: a quorum queue per domain and priority for runs, a topic exchange for events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import aio_pika
import structlog
from aio_pika.abc import AbstractRobustChannel, AbstractRobustConnection, AbstractRobustQueue
from aiormq.channel import Channel

from carillon.cloudevents import Envelope
from carillon.contracts import Event
from carillon.errors import PlatformUnavailableError
from carillon.ledger.records import Delivery, Priority
from carillon.transports.port import CONTENT_TYPE, Bury, Consumer, Execute, Hear
from carillon.transports.rabbitmq_deliveries import TakingConnection
from carillon.transports.rabbitmq_events import RabbitEvents
from carillon.transports.rabbitmq_publishing import JSON, Publisher
from carillon.transports.rabbitmq_runs import CONNECT_SECONDS, QUEUE, RunConsumer, queue_name
from carillon.transports.wire import encode

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 5
HEARTBEAT_SECONDS = 30

Connection = TypeVar("Connection", bound=aio_pika.RobustConnection)


class RabbitTransport:
    """Connections for taking and for giving are apart: an alarm that blocks publishers must not block acks."""

    name = "rabbitmq"
    is_ledger = False

    def __init__(self, url: str, *, prefix: str, name: str, bury: Bury) -> None:
        self._url = url
        self._prefix = prefix
        self._name = name
        self._bury = bury
        self._giving: AbstractRobustConnection | None = None
        self._taking: TakingConnection | None = None
        self._channel: AbstractRobustChannel | None = None
        self._declared: set[str] = set()
        self._consumers: dict[str, RunConsumer] = {}
        self._publisher: Publisher | None = None
        self._events = RabbitEvents(url, prefix=prefix, bury=bury)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect for giving; raises `PlatformUnavailableError` saying what to check."""
        try:
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                self._giving = await self._connect("gives", aio_pika.RobustConnection)
                self._channel = await self._giving.channel(publisher_confirms=True, on_return_raises=True)
                await self._events.connect()
        except Exception as error:
            await self.__aexit__()
            host = urlsplit(self._url).hostname
            message = f"RabbitMQ at {host} cannot be reached ({error!r}); check RABBIT_URL, or start the broker"
            raise PlatformUnavailableError(message) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect; what was not acknowledged is delivered again."""
        for close in (self._events.close, *(c.close for c in (self._taking, self._giving) if c is not None)):
            with suppress(Exception):
                await asyncio.wait_for(close(), CONNECT_SECONDS)

    async def dispatch(self, domain: str, deliveries: Sequence[Delivery]) -> list[UUID]:
        """Publish with confirm, mandatory, within the deadline; returns what was not confirmed."""
        if not deliveries:
            return []
        try:
            queues = {p: await self._declare(domain, Priority(p)) for p in {int(d.priority) for d in deliveries}}
            publisher = await self._current_publisher()
            confirms = [publisher.publish(queues[d.priority], encode(d)) for d in deliveries]
            await asyncio.wait(confirms, timeout=PUBLISH_SECONDS)
            errors = [_error_of(confirm) for confirm in confirms]
        except Exception as error:  # noqa: BLE001 - whatever it was, the ledger sends again
            errors = [error] * len(deliveries)
        failed = [delivery.id for delivery, error in zip(deliveries, errors, strict=True) if error is not None]
        if failed:
            self._declared.clear()
            first = next(error for error in errors if error is not None)
            log.warning("publish failed", domain=domain, runs=len(failed), error=repr(first))
        return failed

    async def redeliver(self, queue: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Publish to one queue, confirmed; raises `PlatformUnavailableError` when the broker does not take it."""
        kept = {name: value for name, value in headers.items() if name != CONTENT_TYPE}
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                publisher = await self._current_publisher()
                await publisher.publish(queue, body, content_type=headers.get(CONTENT_TYPE, JSON), headers=kept)
        except Exception as error:
            sentence = f"RabbitMQ did not take the message for {queue} ({error!r}); it is still kept, try again"
            raise PlatformUnavailableError(sentence) from error

    async def publish(self, envelopes: Sequence[Envelope]) -> list[UUID]:
        """Publish events to the topic exchange; returns the keys of those that were not confirmed."""
        return await self._events.publish(envelopes)

    async def consume(self, domain: str, worker: UUID, concurrency: int, execute: Execute) -> Consumer:  # noqa: ARG002
        """Take runs of every priority, each with a prefetch of `concurrency`."""
        if self._taking is None:
            self._taking = await asyncio.wait_for(self._connect("takes", TakingConnection), CONNECT_SECONDS)
        queues = {priority: queue_name(self._prefix, domain, priority) for priority in Priority}
        consumer = RunConsumer(self._taking, queues, concurrency, execute, self._bury)
        await consumer.start()
        self._consumers[domain] = consumer
        return consumer

    def doubt(self, domain: str) -> None:
        """Let this process's consumer of a domain begin again if nothing arrives."""
        if domain in self._consumers:
            self._consumers[domain].doubt()

    async def hear(self, domain: str, contracts: Sequence[type[Event]], hear: Hear) -> Consumer:
        """Take events from the domain's own queue, bound to what it hears."""
        return await self._events.hear(domain, contracts, hear)

    async def waiting(self, domain: str, priority: Priority) -> int | None:
        """The ready messages of the queue, which is declared again if it is gone."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                queue = await _declare_queue(self._giving_channel, queue_name(self._prefix, domain, priority))
        except Exception as error:  # noqa: BLE001 - an answer is optional
            log.debug("queue not counted", domain=domain, error=repr(error))
            return None
        return queue.declaration_result.message_count

    async def fault(self) -> str | None:
        """Whether the connections stand."""
        for connection in (self._giving, self._taking):
            if connection is not None and not connection.connected.is_set():
                return "RabbitMQ is not connected; runs wait in the ledger until it is back"
        return None

    @property
    def _giving_channel(self) -> AbstractRobustChannel:
        if self._channel is None or self._giving is None:
            message = "the transport is not open"
            raise RuntimeError(message)
        if not self._giving.connected.is_set():
            # The channel would wait for the broker to come back, and every submit with it.
            raise ConnectionError("RabbitMQ is not connected")
        return self._channel

    async def _connect(self, purpose: str, kind: type[Connection]) -> Connection:
        return await aio_pika.connect_robust(
            self._url,
            connection_class=kind,
            timeout=CONNECT_SECONDS,
            reconnect_interval=1,
            client_properties={"connection_name": f"carillon {self._name} {purpose}"},
            heartbeat=HEARTBEAT_SECONDS,
        )

    async def _current_publisher(self) -> Publisher:
        """The publisher of the channel that stands now: a new connection brings a new channel."""
        channel = cast("Channel", await self._giving_channel.get_underlay_channel())
        if self._publisher is None or self._publisher.channel is not channel:
            self._publisher = Publisher(channel)
        return self._publisher

    async def _declare(self, domain: str, priority: Priority) -> str:
        name = queue_name(self._prefix, domain, priority)
        if name not in self._declared:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await _declare_queue(self._giving_channel, name)
            self._declared.add(name)
        return name


def _error_of(confirm: asyncio.Future[Any]) -> BaseException | None:
    if not confirm.done():
        return TimeoutError(f"RabbitMQ did not confirm within {PUBLISH_SECONDS} s")
    return asyncio.CancelledError() if confirm.cancelled() else confirm.exception()


async def _declare_queue(channel: AbstractRobustChannel, name: str) -> AbstractRobustQueue:
    return await channel.declare_queue(name, durable=True, robust=False, arguments=QUEUE)
