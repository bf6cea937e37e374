"""What two and four worker processes bring, beside the share of the machine that the servers take meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.fill import fill_and_wake
from bench.process import wait_until
from bench.processor import seconds_of_servers
from bench.report import Figure
from bench.system import MEASURE_SECONDS

if TYPE_CHECKING:
    from bench.group import Bench
    from bench.ours import Carillon

WORKERS = (1, 2, 4)
#: Put into the ledger by SQL; the workers feed their queue themselves.
RUNS = 30_000


class Scaled(NamedTuple):
    """Executions per second, and the servers' shares of all cores, while so many workers work."""

    rate: float
    shares: dict[str, float]


async def measured(bench: Bench) -> list[Figure]:
    """The same runs for one, two and four workers, in rounds."""
    ours = await bench.ours("rabbitmq")
    rounds: list[dict[int, Scaled]] = []
    for number in range(bench.rounds):
        rounds.append({workers: await _scaled(ours, workers) for workers in WORKERS})
        for workers, scaled in rounds[-1].items():
            shares = ", ".join(f"{server} {share:.0%}" for server, share in scaled.shares.items())
            bench.say(f"round {number + 1}, {workers} workers {scaled.rate:>8.0f}/s; of all cores: {shares}")
    figures = [
        Figure(
            f"scaling_{workers}_workers",
            round(median(one[workers].rate / one[1].rate for one in rounds), 3),
            "ratio",
            "higher",
        )
        for workers in WORKERS[1:]
    ]
    for workers in WORKERS:
        for server in ("rabbitmq", "postgresql"):
            share = median(one[workers].shares[server] for one in rounds)
            figures.append(Figure(f"{server}_share_{workers}_workers", round(share, 3), "share", "lower"))
    return figures


async def _scaled(ours: Carillon, workers: int) -> Scaled:
    """All workers are there before the runs are; what is measured has neither a start-up nor a client in it."""
    async with ours.facts() as facts:
        async with AsyncExitStack() as stack:
            working = [await stack.enter_async_context(ours.worker(facts)) for _ in range(workers)]
            await fill_and_wake(facts, RUNS)
            before, began = seconds_of_servers(), time.monotonic()
            await wait_until(facts.all_ended, what=ours.name, limit=MEASURE_SECONDS, process=working[0], log=ours.log)
            took = (time.monotonic() - began) * (os.cpu_count() or 1)
            used = seconds_of_servers()
        measured = await facts.measured(RUNS)
        await facts.forget()
    return Scaled(measured.rate, {server: (used[server] - before[server]) / took for server in used})
