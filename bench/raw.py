"""The floor: what aio-pika itself can consume and acknowledge, one message after the other, doing nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

import aio_pika
import uvloop
from aio_pika import DeliveryMode, Message

from bench.process import output_of
from bench.system import LARGEST, MEASURE_SECONDS, PREFETCH, Measured

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
    from aiormq.abc import FieldTable

    from bench.servers import Servers

QUORUM: FieldTable = {"x-queue-type": "quorum"}
#: Publishes whose confirms are awaited together.
WINDOW = 500


class Raw:
    """A bare aio-pika loop on a durable quorum queue, persistent messages as large as Carillon's."""

    name = "bare aio-pika"
    largest = LARGEST

    def __init__(self, servers: Servers, body_bytes: int) -> None:
        """`body_bytes` is the size of a delivery of Carillon."""
        self.url = servers.rabbit_url
        self.queue = f"{servers.name}.raw"
        self.body_bytes = body_bytes

    async def measure(self, count: int) -> Measured:
        """Publish, then consume in a process of its own."""
        await self._preload(count)
        written = await output_of(
            sys.executable, "-m", "bench.raw", self.url, self.queue, str(count), limit=MEASURE_SECONDS
        )
        await self._delete()
        return Measured(**json.loads(written))

    async def _preload(self, count: int) -> None:
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(self.queue, durable=True, arguments=QUORUM)
            message = Message(b"x" * self.body_bytes, delivery_mode=DeliveryMode.PERSISTENT)
            for start in range(0, count, WINDOW):
                size = min(WINDOW, count - start)
                await asyncio.gather(*(channel.default_exchange.publish(message, self.queue) for _ in range(size)))

    async def _delete(self) -> None:
        async with await aio_pika.connect(self.url) as connection:
            await (await connection.channel()).queue_delete(self.queue)


class Counter:
    """Acknowledges each delivery and notes when the first and the last one came."""

    def __init__(self, count: int) -> None:
        """`count` deliveries are awaited."""
        self.expected = count
        self.seen = 0
        self.first = self.last = 0.0
        self.done = asyncio.Event()

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        """Acknowledge one."""
        await message.ack()
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.seen += 1
        if self.seen == self.expected:
            self.done.set()


async def consume(url: str, name: str, count: int) -> Measured:
    """Consume `count` messages of a queue and acknowledge each."""
    counter = Counter(count)
    async with await aio_pika.connect(url) as connection, asyncio.timeout(MEASURE_SECONDS):
        queue: AbstractQueue = await _queue(await connection.channel(), name)
        await queue.consume(counter)
        await counter.done.wait()
    return Measured(count=count, seconds=counter.last - counter.first)


async def _queue(channel: AbstractChannel, name: str) -> AbstractQueue:
    await channel.set_qos(prefetch_count=PREFETCH)
    return await channel.declare_queue(name, durable=True, arguments=QUORUM)


if __name__ == "__main__":
    measured = uvloop.run(consume(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    sys.stdout.write(json.dumps({"count": measured.count, "seconds": measured.seconds}))
