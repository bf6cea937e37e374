"""What it costs to submit: `.kiq()` with many in flight beside bare confirmed publishes with as many in flight."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

import aio_pika
import uvloop
from aio_pika import DeliveryMode, Message

from bench.client import CROWD
from bench.errors import BenchError
from bench.process import output_of
from bench.raw import QUORUM
from bench.report import Figure, rates_table
from bench.rounds import compare
from bench.system import MEASURE_SECONDS, Measured

if TYPE_CHECKING:
    from bench.group import Bench
    from bench.ours import Carillon
    from bench.servers import Servers

#: What the rounds may use, in seconds.
ROUNDS_BUDGET = 90.0


class Kiq:
    """`.kiq()` from one process: durable in the ledger and confirmed by the broker when it returns."""

    name = "Carillon .kiq()"

    def __init__(self, ours: Carillon) -> None:
        """`ours` is prepared; no worker of it runs."""
        self._ours = ours
        #: One window: what is beyond it waits in the ledger, and costs no publish.
        self.largest = ours.largest

    async def measure(self, count: int) -> Measured:
        """Submit, and see that the ledger and the queue have each run once."""
        measured = Measured(**json.loads(await self._ours.client("crowd", count)))
        queued, delivered = await self._ours.queued(), await messages_in(self._ours.rabbit_url, self._ours.queue)
        await self._ours.forget()
        if (queued, delivered) != (count, count):
            message = f"{count} runs were submitted; the ledger has {queued} of them queued, the queue {delivered}"
            raise BenchError(message)
        return measured


class Publish:
    """Bare aio-pika: persistent messages of the same size to a durable quorum queue, each confirmed."""

    name = "bare aio-pika publish"

    def __init__(self, servers: Servers, body_bytes: int, largest: int) -> None:
        """`body_bytes` is the size of a delivery of Carillon."""
        self._url = servers.rabbit_url
        self._queue = f"{servers.name}.published"
        self._body_bytes = body_bytes
        self.largest = largest

    async def measure(self, count: int) -> Measured:
        """Publish in a process of its own, and see that the queue has each message."""
        argv = [sys.executable, "-m", "bench.submit", self._url, self._queue, str(self._body_bytes), str(count)]
        measured = Measured(**json.loads(await output_of(*argv, limit=MEASURE_SECONDS)))
        delivered = await messages_in(self._url, self._queue)
        if delivered != count:
            message = f"{count} messages were published, the queue has {delivered}"
            raise BenchError(message)
        return measured


async def messages_in(url: str, queue: str) -> int:
    """How many messages a queue has; it is empty afterwards."""
    async with await aio_pika.connect(url) as connection:
        found = await (await connection.channel()).get_queue(queue)
        purged = await found.purge()
    return purged.message_count or 0


async def measured(bench: Bench) -> list[Figure]:
    """The ratio of the two."""
    ours = await bench.ours("rabbitmq")
    kiq = Kiq(ours)
    publish = Publish(bench.servers, await ours.delivery_bytes(), kiq.largest)
    outcome = await compare([kiq, publish], bench.rounds, ROUNDS_BUDGET, bench.say)
    bench.say("\n" + rates_table(outcome, f"submits per second, {CROWD} in flight") + "\n")
    return [Figure("submit_vs_raw", round(median(outcome.ratios(kiq.name, publish.name)), 3), "ratio", "higher")]


async def publish_all(url: str, queue: str, body_bytes: int, count: int) -> dict[str, float]:
    """Publish `count` messages from as many coroutines as `.kiq()` is called from."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True, arguments=QUORUM)
        left = iter(range(count))

        async def one_of_them() -> None:
            for _ in left:
                message = Message(b"x" * body_bytes, delivery_mode=DeliveryMode.PERSISTENT)
                await channel.default_exchange.publish(message, queue)

        began = time.perf_counter()
        await asyncio.gather(*(one_of_them() for _ in range(CROWD)))
        return {"count": count, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    json.dump(uvloop.run(publish_all(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))), sys.stdout)
