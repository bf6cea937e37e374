"""Taskiq with its own broker and Redis results as a measured system; its results are the proof of what it executed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from bench.peers_environment import PEERS, PYTHON
from bench.process import output_of, running, wait_until
from bench.system import LARGEST, MEASURE_SECONDS, PREFETCH, Measured

if TYPE_CHECKING:
    from bench.servers import Servers


class Taskiq:
    """`taskiq worker` with one process, as it comes with taskiq-aio-pika and taskiq-redis."""

    name = "Taskiq + aio-pika + Redis results"
    largest = LARGEST

    def __init__(self, servers: Servers) -> None:
        """Its queue and its keys carry the name of this run."""
        self._queue = f"{servers.name}.taskiq"
        self._redis_url = servers.redis_url
        self._log = Path(tempfile.gettempdir()) / f"{self._queue}.log"
        self._env = {
            "BENCH_BROKER_URL": servers.rabbit_url,
            "BENCH_RESULTS_URL": servers.redis_url,
            "BENCH_QUEUE": self._queue,
            "BENCH_PREFETCH": str(PREFETCH),
        }

    async def measure(self, count: int) -> Measured:
        """Queue, start the worker, and read from its results when it did what."""
        argv = [str(PYTHON), "taskiq_preload.py", str(count)]
        ids = json.loads(await output_of(*argv, env=self._env, cwd=PEERS))
        keys = [f"{self._queue}:{identifier}" for identifier in ids]

        async with Redis.from_url(self._redis_url) as redis:

            async def all_ended() -> bool:
                return int(await redis.exists(*keys)) == count

            async with running(*self._worker(), env=self._env, cwd=PEERS, log=self._log) as worker:
                await wait_until(all_ended, what=self.name, limit=MEASURE_SECONDS, process=worker, log=self._log)
            # The task itself says when it ran.
            ran = [json.loads(value)["return_value"] for value in await redis.mget(keys) if value is not None]
            await redis.unlink(*keys)
        self._log.unlink(missing_ok=True)
        return Measured(count=len(ran), seconds=max(ran) - min(ran))

    def _worker(self) -> list[str]:
        limits = ["--workers", "1", "--max-async-tasks", str(PREFETCH), "--max-prefetch", str(PREFETCH)]
        return [str(PYTHON), "-m", "taskiq", "worker", "taskiq_app:broker", *limits, "--log-level", "WARNING"]
