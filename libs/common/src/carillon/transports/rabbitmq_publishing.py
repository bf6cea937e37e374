"""Giving messages to queues of RabbitMQ, confirmed, and many of them in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
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


class Publisher:
    """Publishes on one channel of aiormq with confirms; nothing else may publish on it.

    aiormq's own `basic_publish` costs as much as everything else that a submit costs: a lock, two context managers, and
    a write for each message. This one registers the confirm, and writes what came in one turn of the loop at once.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._frames: list[bytes] = []
        self._is_scheduled = False
        self._unconfirmed_bytes = 0

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
        properties = Basic.Properties(
            content_type=content_type,
            headers=dict(headers) if headers else None,
            delivery_mode=_PERSISTENT,
            message_id=str(tag),
        )
        self._frames += _frames(self.channel, queue, properties, body)
        confirm = self.channel.create_future()
        self.channel.confirmations[tag] = confirm
        # By this aiormq finds the confirm of a message that comes back.
        self.channel.message_id_delivery_tag[str(tag)] = tag
        self._unconfirmed_bytes += len(body)
        confirm.add_done_callback(self._forget(str(tag), len(body)))
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._write)
        return confirm

    def _forget(self, message_id: str, size: int) -> Callable[[asyncio.Future[Any]], None]:
        def forget(_: asyncio.Future[Any]) -> None:
            self.channel.message_id_delivery_tag.pop(message_id, None)
            self._unconfirmed_bytes -= size

        return forget

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


def _frames(channel: Channel, queue: str, properties: Basic.Properties, body: bytes) -> list[bytes]:
    number, most = channel.number, channel.max_content_size
    return [
        marshal(Basic.Publish(exchange="", routing_key=queue, mandatory=True), number),
        marshal(ContentHeader(properties=properties, body_size=len(body)), number),
        *(marshal(ContentBody(body[at : at + most]), number) for at in range(0, len(body), most)),
    ]
