"""Events over RabbitMQ, spoken with FastStream: the exchange `events`, and one queue for each domain that hears."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import structlog
from fast_depends.exceptions import ValidationError as CastError
from faststream import AckPolicy, BaseMiddleware
from faststream.exceptions import SubscriberNotFound
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage as InjectedMessage
from faststream.rabbit.schemas.queue import QueueType
from faststream.specification import AsyncAPI
from pydantic import ValidationError, create_model

from carillon.cloudevents import AMQP_PREFIXES, HTTP_PREFIXES, STRUCTURED, Envelope, UnreadableEventError, parse
from carillon.contracts import Event
from carillon.errors import IdempotencyConflictError, PlatformUnavailableError
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.transports.port import CONTENT_TYPE, Bury, Consumer, Hear

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage, FieldValue
    from faststream.rabbit.message import RabbitMessage

log = structlog.get_logger(__name__)

#: The AMQP binding of CloudEvents, and the one that RabbitMQ clients such as Knative's speak.
PREFIXES = (*AMQP_PREFIXES, *HTTP_PREFIXES)
EXCHANGE = RabbitExchange("events", type=ExchangeType.TOPIC, durable=True)
#: Events of one domain that are being submitted at once.
PREFETCH = 50
PUBLISH_SECONDS = 5
CONNECT_SECONDS = 5
#: How long to leave the ledger alone after it did not answer.
AWAY_SECONDS = 0.5
#: A binding that somebody removed is there again after this time.
BINDING_SECONDS = 10.0


def queue_of(prefix: str, domain: str, first: type[Event]) -> RabbitQueue:
    """The queue of what a domain hears, bound to the first type; `RabbitEvents.hear` binds the others."""
    return RabbitQueue(
        f"{prefix}.{domain}.events",
        durable=True,
        routing_key=first.type,
        queue_type=QueueType.QUORUM,
        arguments={"x-delivery-limit": 20},
    )


def subscribe(broker: RabbitBroker, queue: RabbitQueue, contracts: Sequence[type[Event]], hear: Hear) -> None:
    """Declare the typed subscribers of a queue, one for each contract."""
    subscriber = broker.subscriber(
        queue, EXCHANGE, ack_policy=AckPolicy.MANUAL, no_reply=True, decoder=_decode, title=queue.name
    )
    for contract in contracts:
        subscriber(_listener(contract, hear), filter=_is(contract))


def asyncapi(domain: str, prefix: str, contracts: Sequence[type[Event]], says: Sequence[type[Event]]) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of what a domain hears and says. Nothing is connected for it."""
    broker = RabbitBroker("amqp://localhost", logger=None, description="Shared by all services.")

    async def hear(_: Envelope) -> None:
        """Not called."""

    if contracts:
        subscribe(broker, queue_of(prefix, domain, contracts[0]), contracts, hear)
    for contract in says:
        broker.publisher(
            routing_key=contract.type,
            exchange=EXCHANGE,
            title=contract.type,
            description=contract.__doc__,
            schema=_typed(contract),
        )
    title = f"Carillon {domain}"
    document = AsyncAPI(broker, title=title, version="0.1.0", schema_version="3.0.0").to_specification()
    return cast("dict[str, Any]", document.to_jsonable())


class RabbitEvents:
    """Says and hears events. Saying and hearing have a connection each."""

    def __init__(self, url: str, *, prefix: str, bury: Bury) -> None:
        self._url = url
        self._prefix = prefix
        self._bury = bury
        self._sayer = self._broker()
        self._hearers: list[RabbitBroker] = []

    async def connect(self) -> None:
        """Connect for saying, and see that the exchange exists."""
        await self._sayer.connect()
        await self._sayer.declare_exchange(EXCHANGE)

    async def close(self) -> None:
        """Disconnect."""
        for broker in (*self._hearers, self._sayer):
            await broker.stop()

    async def publish(self, envelopes: Sequence[Envelope]) -> list[UUID]:
        """Publish with confirm; an event that nobody hears is no error. Returns the keys of what was not confirmed."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                results = await asyncio.gather(*(self._say(e) for e in envelopes), return_exceptions=True)
        except TimeoutError as error:
            results = [error] * len(envelopes)
        failed = [e.key for e, result in zip(envelopes, results, strict=True) if isinstance(result, BaseException)]
        if failed:
            first = next(result for result in results if isinstance(result, BaseException))
            log.warning("events not published", events=len(failed), error=repr(first))
        return failed

    async def hear(self, domain: str, contracts: Sequence[type[Event]], hear: Hear) -> Consumer:
        """Bind the domain's queue to the contracts' types and take from it."""
        bury = self._bury
        queue = queue_of(self._prefix, domain, contracts[0])

        class Settle(_Settle):
            """Bound to this queue."""

            async def bury(self, reason: str, message: AbstractIncomingMessage) -> None:
                headers = {name: str(value) for name, value in message.headers.items()}
                headers[CONTENT_TYPE] = message.content_type or ""
                await bury(queue.name, reason, message.body, headers)

        broker = self._broker(Settle)
        self._hearers.append(broker)
        subscribe(broker, queue, contracts, hear)
        await asyncio.wait_for(broker.start(), 2 * CONNECT_SECONDS)
        hearing = _Hearing(broker, queue, [contract.type for contract in contracts])
        await hearing.bind()
        hearing.begin()
        return hearing

    def _broker(self, *middlewares: Any) -> RabbitBroker:
        return RabbitBroker(
            self._url,
            timeout=CONNECT_SECONDS,
            reconnect_interval=1,
            default_channel=Channel(prefetch_count=PREFETCH),
            middlewares=middlewares,
            logger=None,
        )

    async def _say(self, envelope: Envelope) -> None:
        headers: dict[str, FieldValue] = {"traceparent": envelope.traceparent} if envelope.traceparent else {}
        await self._sayer.publish(
            envelope.structured(),
            exchange=EXCHANGE,
            routing_key=envelope.type,
            content_type=STRUCTURED,
            headers=headers,
            message_id=uuid4().hex,
            persist=True,
            mandatory=False,
        )


class _Hearing:
    """Hears until it is stopped, and binds its queue again and again: a binding that is gone says nothing of itself."""

    def __init__(self, broker: RabbitBroker, queue: RabbitQueue, types: Sequence[str]) -> None:
        self._broker = broker
        self._queue = queue
        self._types = types
        self._binding: asyncio.Task[None] | None = None
        self._over = False

    async def bind(self) -> None:
        """Have the exchange bring what the domain hears; a binding that is there stays as it is."""
        declared = await self._broker.declare_queue(self._queue)
        for type_ in self._types:
            await declared.bind(EXCHANGE.name, routing_key=type_, timeout=CONNECT_SECONDS)

    def begin(self) -> None:
        """Bind from now on."""
        self._binding = asyncio.create_task(self._bind_forever(), name=f"bindings of {self._queue.name}")

    async def stop(self) -> None:
        """Stop hearing; what is in hand is settled first."""
        self._over = True
        if self._binding is not None:
            self._binding.cancel()
            await asyncio.wait({self._binding})
        # A broker that is away, or comes back just now, brings nothing more; what executes is waited for all the same.
        with suppress(Exception):
            await self._broker.stop()

    async def _bind_forever(self) -> None:
        # Before Python 3.12, `asyncio.wait_for`, by which aio-pika waits for the broker, forgets to be cancelled when
        # the answer comes at the same moment.
        while not self._over:
            await asyncio.sleep(BINDING_SECONDS)
            try:
                async with asyncio.timeout(2 * CONNECT_SECONDS):
                    await self.bind()
            except Exception as error:  # noqa: BLE001 - whatever the broker's state raises, the next time may be better
                log.info("events not bound again", queue=self._queue.name, error=repr(error))


class _Settle(BaseMiddleware):
    """Acknowledges what was submitted, buries what cannot be heard, and waits while the ledger is away."""

    async def bury(self, reason: str, message: AbstractIncomingMessage) -> None:
        """Keep the message."""
        raise NotImplementedError

    async def consume_scope(self, call_next: Any, msg: Any) -> Any:
        """Try until the ledger answers: a delivery is only given up with the connection."""
        await _until_the_ledger_answers(lambda: call_next(msg))

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        """Settle the delivery. FastStream parses and filters outside of `consume_scope`: only here is every error."""
        message = self.msg
        if message is None or (exc_val is not None and not isinstance(exc_val, Exception)):
            return await super().after_processed(exc_type, exc_val, exc_tb)
        if exc_val is not None:
            reason = _reason(exc_val)
            await _until_the_ledger_answers(lambda: self.bury(reason, message))
            log.warning("event buried", reason=reason[:500])
        # After a reconnect the old delivery tag is invalid; the message comes again, and its run is there already.
        with suppress(Exception):
            await message.ack()
        return True


async def _until_the_ledger_answers(write: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await write()
        except (PlatformUnavailableError, *SERVER_AWAY) as error:
            log.warning("event waits for the ledger", error=repr(error))
            await asyncio.sleep(AWAY_SECONDS)
        else:
            return


def _reason(error: Exception) -> str:
    """Why an event is not heard, for a person."""
    if isinstance(error, CastError) and isinstance(error.original_error, ValidationError):
        error = error.original_error
    if isinstance(error, ValidationError):
        faults = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()[:5]]
        return f"does not fit the contract of its type: {'; '.join(faults)}"
    if isinstance(error, SubscriberNotFound):
        return "no task of this domain hears this type"
    if isinstance(error, IdempotencyConflictError):
        return "an event with this source and id came before with other data; give every event an id of its own"
    if isinstance(error, UnreadableEventError):
        return str(error)
    log.error("event failed", exc_info=error)
    return f"hearing it failed, which is a defect: {error!r}"


async def _decode(message: RabbitMessage) -> dict[str, Any]:
    events = parse(message.body, message.content_type or "", message.headers, PREFIXES)
    if len(events) > 1:
        raise UnreadableEventError(
            "a queue takes events one by one; send each in a message of its own, or the batch over HTTP"
        )
    return events[0].model_dump()


def _typed(contract: type[Event]) -> type[Envelope]:
    return create_model(
        f"{contract.__name__}CloudEvent", __base__=Envelope, __doc__=contract.__doc__, data=(contract, ...)
    )


def _is(contract: type[Event]) -> Callable[[RabbitMessage], Awaitable[bool]]:
    async def of_this_type(message: RabbitMessage) -> bool:
        return bool((await message.decode() or {}).get("type") == contract.type)

    return of_this_type


def _listener(contract: type[Event], hear: Hear) -> Callable[..., Awaitable[None]]:
    async def listen(event: Envelope, message: RabbitMessage) -> None:  # noqa: ARG001 - its type is the check
        # What is recorded is what was sent, not what this version of the contract kept of it.
        await hear(Envelope.model_validate(await message.decode()))

    listen.__annotations__ = {"event": _typed(contract), "message": InjectedMessage, "return": None}
    listen.__name__ = contract.__name__
    listen.__doc__ = contract.__doc__
    return listen
