"""Carillon as a measured system: one worker process with everything on, proven by its own ledger."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import aio_pika
import asyncpg

from bench.ledger_facts import LedgerFacts
from bench.process import output_of, running, wait_until
from bench.system import MEASURE_SECONDS, Measured
from carillon.migrations import migrate
from carillon.platform import WINDOW

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping

    from bench.otlp_sink import Collector
    from bench.servers import Servers

ROOT = Path(__file__).parent.parent
#: Runs of one latency measurement, and how long they may take to end after the last submit.
SAMPLES = 300
#: How long a worker may take from its start until it is enrolled, in seconds.
START_SECONDS = 30.0


class Carillon:
    """The domain `bench` on one of the two transports."""

    #: What lies in the broker before the worker starts, as it does for the others. A longer backlog waits in the ledger
    #: and is fed by the worker while it works; that is another measurement.
    largest = WINDOW

    def __init__(
        self, servers: Servers, transport: str, traces: Collector, env: Mapping[str, str] | None = None
    ) -> None:
        """`transport` is `rabbitmq` or `postgres`; its ledger is the private database of that name.

        `env` changes the environment of its processes; an empty value takes a variable away.
        """
        self.name = f"Carillon on {transport}"
        self.database_url = servers.database(transport)
        self.log = Path(tempfile.gettempdir()) / f"{servers.name}.{transport}.log"
        self.rabbit_url = servers.rabbit_url if transport == "rabbitmq" else ""
        self.queue = f"{servers.name}.bench.tasks"
        self.env = _environment(servers, traces) | {"DATABASE_URL": self.database_url}
        if self.rabbit_url:
            self.env |= {"RABBIT_URL": self.rabbit_url, "RABBIT_QUEUE_PREFIX": servers.name}
        self.env |= env or {}

    async def prepare(self) -> None:
        """Make the ledger's tables, and let one worker make its queues and enter its tasks in the catalogue."""
        await migrate(self.database_url, "carillon.ledger.migrations")
        async with self.facts() as facts, self.worker(facts):
            return

    async def measure(self, count: int) -> Measured:
        """Submit through the platform, then start one worker, and read from the ledger when it did what."""
        await self.client("preload", count)
        async with self.facts() as facts:
            async with self.worker(facts) as worker:
                await wait_until(facts.all_ended, what=self.name, limit=MEASURE_SECONDS, process=worker, log=self.log)
            measured = await facts.measured(count)
            await facts.forget()
        return measured

    async def latency_ms(self) -> tuple[float, float]:
        """The median and the 99th percentile from submit to start on an idle platform, in milliseconds."""
        async with self.facts() as facts:
            async with self.worker(facts) as worker:
                submitted = json.loads(await self.client("spaced", SAMPLES))
                await wait_until(facts.all_ended, what=self.name, limit=10, process=worker, log=self.log)
            started = await facts.started_ns()
            await facts.forget()
        waited = [(started[run] - before) / 1e6 for run, before in submitted.items()]
        cuts = quantiles(waited, n=100, method="inclusive")
        return cuts[49], cuts[98]

    async def delivery_bytes(self) -> int:
        """How large the body of one delivery is, so that the floor carries the same."""
        await self.client("preload", 1)
        async with await aio_pika.connect(self.rabbit_url) as connection:
            queue = await (await connection.channel()).get_queue(self.queue)
            message = await queue.get(no_ack=True)
        await self.forget()
        return len(message.body)

    async def queued(self) -> int:
        """How many runs wait for a worker."""
        async with self.facts() as facts:
            return await facts.queued()

    async def forget(self) -> None:
        """Empty the ledger."""
        async with self.facts() as facts:
            await facts.forget()

    async def empty(self) -> None:
        """Empty the ledger, and the queue of what a worker that was stopped gave back to it."""
        if self.rabbit_url:
            async with await aio_pika.connect(self.rabbit_url) as connection:
                await (await (await connection.channel()).get_queue(self.queue)).purge()
        await self.forget()

    async def client(self, action: str, count: int) -> str:
        """Run an action of `bench.client` and give back what it says."""
        argv = [sys.executable, "-m", "bench.client", action, str(count)]
        return await output_of(*argv, env=self.env, cwd=ROOT, limit=MEASURE_SECONDS)

    @asynccontextmanager
    async def facts(self) -> AsyncIterator[LedgerFacts]:
        """The ledger, as the benchmark reads it."""
        connection = await asyncpg.connect(self.database_url)
        try:
            yield LedgerFacts(connection)
        finally:
            await connection.close()

    @asynccontextmanager
    async def worker(self, facts: LedgerFacts) -> AsyncIterator[Process]:
        """One worker process, enrolled in the ledger."""
        argv = [sys.executable, "-m", "bench.domain"]
        async with running(*argv, env=self.env, cwd=ROOT, log=self.log) as worker:

            async def enrolled() -> bool:
                return await facts.enrolled(worker.pid)

            await wait_until(enrolled, what=self.name, limit=START_SECONDS, process=worker, log=self.log)
            yield worker
        self.log.unlink(missing_ok=True)


def _environment(servers: Servers, traces: Collector) -> dict[str, str]:
    """Everything on: metrics always are, every tenth trace is exported, results and history are kept."""
    # Empty means taken away: what the caller has set must not reach the PostgreSQL transport.
    return {
        "RABBIT_URL": "",
        "RABBIT_HOST": "",
        "REDIS_URL": servers.redis_url,
        "CARILLON_LOG_FORMAT": "json",
        "CARILLON_LOG_LEVEL": "info",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": traces.endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
