"""Celery's canvas as measured workflows: chains and a chord, with Redis as the broker and for the results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.celery_peer import PATIENCE_SECONDS, Celery, RedisResults
from bench.peers_environment import PEERS, PYTHON
from bench.process import output_of, running
from bench.system import FAN_OUT, LARGEST, PREFETCH

if TYPE_CHECKING:
    from bench.servers import Servers


class Canvas(Celery):
    """A kind of workflow that the client composes, and whose steps the worker sends on."""

    app = "celery_canvas"

    def __init__(self, servers: Servers, workflow: str, children: int = 1) -> None:
        """`workflow` is `chain` or `fan_out`; what is counted are steps, those of a chord with the one that gathers."""
        queue = f"{servers.name}.canvas_{workflow}_{children}"
        name = f"Celery canvas, {children} {'child' if children == 1 else 'children'}"
        super().__init__(name, servers, RedisResults(servers.redis_url, f"{queue}:"), queue, children)
        self.env |= {"BENCH_BROKER_URL": servers.redis_url, "BENCH_PREFETCH": str(PREFETCH)}
        self.largest = FAN_OUT if workflow == "fan_out" else LARGEST
        self.preload = ("celery_canvas.py", workflow)

    async def alone_ms(self, count: int) -> list[float]:
        """How long each of `count` chains takes, one after the other, from its start until its result is there."""
        argv = [str(PYTHON), "celery_canvas.py", "alone", str(count)]
        async with running(*self.worker(), env=self.env, cwd=PEERS, log=self.log, patience=PATIENCE_SECONDS):
            took: list[float] = json.loads(await output_of(*argv, env=self.env, cwd=PEERS))
        self.log.unlink(missing_ok=True)
        return took
