"""Executions beside the peers that are asynchronous themselves: Taskiq on RabbitMQ, Procrastinate on PostgreSQL."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.peers_environment import install
from bench.procrastinate_peer import Procrastinate
from bench.report import Figure, rates_table
from bench.rounds import compare
from bench.taskiq_peer import Taskiq

if TYPE_CHECKING:
    from bench.group import Bench

#: What the rounds may use, in seconds.
ROUNDS_BUDGET = 170.0


async def measured(bench: Bench) -> list[Figure]:
    """One worker process against one, on the same server, with 200 at once."""
    bench.versions |= await install()
    procrastinate = Procrastinate(bench.servers)
    await procrastinate.prepare()
    rabbitmq, postgres, taskiq = await bench.ours("rabbitmq"), await bench.ours("postgres"), Taskiq(bench.servers)
    outcome = await compare([rabbitmq, taskiq, postgres, procrastinate], bench.rounds, ROUNDS_BUDGET, bench.say)
    bench.say("\n" + rates_table(outcome) + "\n")
    pairs = {
        "execution_rabbitmq_vs_taskiq_redis": (rabbitmq.name, taskiq.name),
        "execution_postgres_vs_procrastinate": (postgres.name, procrastinate.name),
    }
    return [
        Figure(name, round(median(outcome.ratios(ours, theirs)), 3), "ratio", "higher")
        for name, (ours, theirs) in pairs.items()
    ]
