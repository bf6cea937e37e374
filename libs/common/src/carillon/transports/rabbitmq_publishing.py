"""Giving messages to queues of RabbitMQ, confirmed, and many of them in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from struct import Struct
from typing import Any

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader

#: What the broker was given and has not confirmed, for however long: beyond it nothing is given. While an alarm blocks
#: publishers, what they gave up waiting for still lies in the connection.
MOST_UNCONFIRMED_BYTES = 32 * 1024 * 1024
#: A connection whose buffer is full is tried again after this.
FULL_SECONDS = 0.02
JSON = "application/json"
_PERSISTENT = 2

#: A frame: type, channel, size, so many bytes, and its end.
_FRAME = Struct(">BHI")
_FRAME_END = b"\xce"
_HEADER_KIND, _BODY = 2, 3
#: A content header of class `basic`: class, weight, size of the body, which properties follow, and these: the type of
#: the content, how it is delivered, and the id of the message with its length before it.
_BASIC = 60
_TYPE = bytes([len(JSON)]) + JSON.encode()
_HEADER = Struct(f">BHIHHQH{len(_TYPE)}sBB")
_HEADER_BEFORE_ID = _HEADER.size - _FRAME.size
#: Content type, delivery mode, message id.
_FLAGS = 1 << 15 | 1 << 12 | 1 << 7


class Publisher:
    """Publishes on one channel of aiormq with confirms; nothing else may publish on it.

    aiormq's own `basic_publish` costs as much as everything else that a submit costs: a lock, two context managers, and
    a write for each message. This one registers the confirm, and writes what came in one turn of the loop at once. The
    frames of a run are packed here, too.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._frames: list[bytes] = []
        #: By queue, the frame that says where a message goes.
        self._methods: dict[str, bytes] = {}
        self._is_scheduled = False
        self._unconfirmed_bytes = 0
        channel.closing.add_done_callback(self._refuse)

    def publish(
        self, queue: str, body: bytes, *, content_type: str = JSON, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[Any]:
        """Give one persistent message to a queue; done when it is confirmed, failed when it is not or has no queue.

        Raises `ConnectionError` when the channel is closed or the broker confirms nothing.
        """
        if self.channel.is_closed:
            raise ConnectionError("the channel to RabbitMQ is closed")
        if self._unconfirmed_bytes > MOST_UNCONFIRMED_BYTES:
            message = f"RabbitMQ has not confirmed {self._unconfirmed_bytes} bytes; does an alarm block publishers?"
            raise ConnectionError(message)
        self.channel.delivery_tag += 1
        tag = self.channel.delivery_tag
        self._frames.append(self._message(queue, body, content_type, headers, str(tag)))
        confirm: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.channel.confirmations[tag] = confirm
        # By this aiormq finds the confirm of a message that comes back.
        self.channel.message_id_delivery_tag[str(tag)] = tag
        self._unconfirmed_bytes += len(body)
        confirm.add_done_callback(partial(self._forget, str(tag), len(body)))
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._write)
        return confirm

    def _forget(self, message_id: str, size: int, confirm: asyncio.Future[Any]) -> None:
        self.channel.message_id_delivery_tag.pop(message_id, None)
        self._unconfirmed_bytes -= size
        if not confirm.cancelled():
            # Perhaps nobody waits for it any more.
            confirm.exception()

    def _refuse(self, closing: asyncio.Future[Any]) -> None:
        """Fail what was not confirmed when the channel closed; who publishes next is told at once."""
        why = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        for confirm in list(self.channel.confirmations.values()):
            if not confirm.done():
                error = ConnectionError(f"the channel to RabbitMQ closed before it confirmed ({why!r})")
                confirm.set_exception(error)

    def _write(self) -> None:
        """Hand over what waits, in the order of its tags; a closed channel has failed its confirms already."""
        if not self.channel.is_closed:
            try:
                self.channel.write_queue.put_nowait(ChannelFrame(b"".join(self._frames), should_close=False))
            except asyncio.QueueFull:
                asyncio.get_running_loop().call_later(FULL_SECONDS, self._write)
                return
        self._frames.clear()
        self._is_scheduled = False

    def _message(
        self, queue: str, body: bytes, content_type: str, headers: Mapping[str, str] | None, message_id: str
    ) -> bytes:
        """The frames of one message: method, header and body, as section 4.2 of AMQP 0-9-1 has them."""
        number, most = self.channel.number, self.channel.max_content_size
        method = self._methods.get(queue)
        if method is None:
            publish = Basic.Publish(exchange="", routing_key=queue, mandatory=True)
            method = self._methods[queue] = marshal(publish, number)
        if headers or content_type != JSON:
            properties = Basic.Properties(
                content_type=content_type,
                headers=dict(headers) if headers else None,
                delivery_mode=_PERSISTENT,
                message_id=message_id,
            )
            header = marshal(ContentHeader(properties=properties, body_size=len(body)), number)
        else:
            header = _header(number, len(body), message_id.encode())
        if 0 < len(body) <= most:
            return b"".join((method, header, _FRAME.pack(_BODY, number, len(body)), body, _FRAME_END))
        parts = (marshal(ContentBody(body[at : at + most]), number) for at in range(0, len(body), most))
        return b"".join((method, header, *parts))


def _header(number: int, size: int, message_id: bytes) -> bytes:
    """The content header of a run. pamqp takes longer for it than everything else here for the whole message."""
    length = _HEADER_BEFORE_ID + len(message_id)
    fixed = _HEADER.pack(_HEADER_KIND, number, length, _BASIC, 0, size, _FLAGS, _TYPE, _PERSISTENT, len(message_id))
    return fixed + message_id + _FRAME_END
