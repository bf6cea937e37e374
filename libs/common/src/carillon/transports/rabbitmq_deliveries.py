"""Deliveries of RabbitMQ, taken out of the stream of bytes before aiormq reads it (decision 0017)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

from aio_pika import RobustConnection
from aiormq.abc import DeliveredMessage
from aiormq.connection import TransportFactory
from aiormq.exceptions import InvalidFrameError
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from yarl import URL

#: AMQP 0-9-1, section 4.2: a frame is type, channel and size, so many bytes, and an end.
_FRAME = Struct(">BHI")
_LONG = Struct(">Q")
_FRAME_END = 0xCE
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_KINDS = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
#: Class and method of `basic.deliver`; after it come the consumer's tag, the delivery's, a bit, and two names.
_DELIVER = b"\x00\x3c\x00\x3c"
#: Where in a content header the size of the body stands.
_BODY_SIZE_AT = 4
#: aiormq takes a connection for dead on which it reads nothing; so often it is told of what it does not get to read.
ALIVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message, as a consumer gets it."""

    #: By which it is acknowledged on its channel.
    tag: int
    body: bytes
    #: The frame of its content header, which few look at.
    header: bytes

    @classmethod
    def of(cls, message: DeliveredMessage) -> Delivered:
        """The same of a message that aiormq has read."""
        return cls(message.delivery_tag or 0, message.body, marshal(message.header, 1))

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers, by name; none where they cannot be read."""
        try:
            _, _, header = unmarshal(self.header)
        except Exception:  # noqa: BLE001 - anybody may have sent them, and pamqp raises what it stumbles over
            return {}
        return dict(header.properties.headers or {}) if isinstance(header, ContentHeader) else {}


#: Gets each delivery while the bytes are read, so it begins something and returns.
Take = Callable[[Delivered], None]


class Deliveries(TransportFactory):
    """Opens the connections of aiormq, and hands on what comes for the consumers that it knows.

    aiormq reads a delivery as three frames with three awaits for each, unpacks all that they say, and makes two tasks.
    Handshake, channels, heartbeats and errors stay with aiormq: it gets every byte that belongs to no such delivery.
    """

    def __init__(self) -> None:
        #: By consumer tag. Enter one before it consumes: deliveries may come with the broker's answer.
        self.takers: dict[bytes, Take] = {}

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as `asyncio.open_connection` does, with a reader of our own."""
        loop = asyncio.get_running_loop()
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        reader = DeliveryReader(self.takers, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, url.host or "", url.port or 0, ssl=context, **kwargs
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class TakingConnection(RobustConnection):
    """A connection of aio-pika whose deliveries can be taken: each time it connects, by the same takers."""

    def __init__(self, url: URL, **options: Any) -> None:
        super().__init__(url, **options)
        self.deliveries = Deliveries()
        # What is in here goes to aiormq's connection, which refuses what it does not know.
        self.kwargs["transport_factory"] = self.deliveries


class _Content:
    """A delivery of which not all frames have come."""

    __slots__ = ("body", "header", "size", "tag", "take")

    def __init__(self, take: Take, tag: int) -> None:
        self.take = take
        self.tag = tag
        self.header = b""
        self.size = 0
        self.body = b""


class DeliveryReader(asyncio.StreamReader):
    """Gives deliveries to their takers, and everything else, in whole frames, to whoever reads it."""

    def __init__(self, takers: dict[bytes, Take], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._takers = takers
        self._clock = loop.time
        #: The beginning of a frame.
        self._rest = b""
        #: By channel.
        self._contents: dict[int, _Content] = {}
        self._is_stream_of_frames = True
        self._passed_at = loop.time()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # the stubs say less than the sockets give
        """Take what came from the socket."""
        if not self._is_stream_of_frames:
            super().feed_data(data)
            return
        if self._rest:
            data = self._rest + data
        passed = at = taken = 0
        while len(data) - at > _FRAME.size:
            kind, channel, size = _FRAME.unpack_from(data, at)
            after = at + _FRAME.size + size + 1
            if kind not in _KINDS or (after <= len(data) and data[after - 1] != _FRAME_END):
                # aiormq says what is wrong with it, and closes.
                self._is_stream_of_frames = False
                at = len(data)
                break
            if after > len(data):
                break
            try:
                is_taken = self._take(kind, channel, data, at, after)
            except ValueError as error:
                self.set_exception(InvalidFrameError(str(error)))
                return
            if is_taken:
                self._pass(data[passed:at])
                passed, taken = after, taken + 1
            at = after
        self._pass(data[passed:at])
        self._rest = data[at:]
        if taken and self._clock() - self._passed_at > ALIVE_SECONDS:
            self._pass(_ALIVE)

    def feed_eof(self) -> None:
        """Hand on what the connection ended in the middle of."""
        self._pass(self._rest)
        self._rest = b""
        super().feed_eof()

    def _pass(self, data: bytes) -> None:
        if data:
            self._passed_at = self._clock()
            super().feed_data(data)

    def _take(self, kind: int, channel: int, data: bytes, at: int, after: int) -> bool:
        """Whether a frame belongs to a delivery for somebody here; raises `ValueError` when it cannot be."""
        content = self._contents.get(channel)
        payload, end = at + _FRAME.size, after - 1
        if content is None:
            if kind == _METHOD and data.startswith(_DELIVER, payload, end):
                return self._begin(channel, data, payload + len(_DELIVER), end)
            return False
        if kind == _HEADER and not content.header and end - payload >= _BODY_SIZE_AT + _LONG.size:
            content.header = data[at:after]
            (content.size,) = _LONG.unpack_from(data, payload + _BODY_SIZE_AT)
        elif kind == _BODY and content.header:
            content.body += data[payload:end]
        else:
            raise ValueError(f"frame of type {kind} in the middle of a delivery on channel {channel}")
        if len(content.body) >= content.size:
            del self._contents[channel]
            content.take(Delivered(content.tag, content.body, content.header))
        return True

    def _begin(self, channel: int, data: bytes, at: int, end: int) -> bool:
        after_tag = at + 1 + data[at]
        if after_tag + _LONG.size > end:
            raise ValueError(f"a delivery on channel {channel} that ends within its tags")
        take = self._takers.get(data[at + 1 : after_tag])
        if take is None:
            return False
        self._contents[channel] = _Content(take, *_LONG.unpack_from(data, after_tag))
        return True


_ALIVE = marshal(Heartbeat(), 0)
