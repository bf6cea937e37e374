"""Workflows beside those of DBOS and Celery: chains of ten steps, alone and many at once, and a fan-out."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Protocol

import asyncpg

from bench.canvas_peer import Canvas
from bench.dbos_peer import Dbos
from bench.our_workflows import Workflows
from bench.peers_environment import install
from bench.report import Figure, rates_table
from bench.rounds import compare
from bench.system import FAN_OUT, System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.group import Bench
    from bench.ours import Carillon
    from bench.rounds import Outcome

#: Chains that run alone, one after the other.
ALONE = 20
#: Steps of the smallest measurement: those of a hundred chains, which are there at once.
SMALLEST = 1_000
#: What the rounds of the chains and those of the fan-out may use, in seconds.
CHAINS_BUDGET, FAN_OUT_BUDGET = 300.0, 150.0
DURABILITY = "select current_setting('fsync') as fsync, current_setting('synchronous_commit') as synchronous_commit"


class Chains(System, Protocol):
    """A system of which a chain can be run alone as well."""

    async def alone_ms(self, count: int) -> list[float]:
        """How long each of `count` chains takes on an idle system, in milliseconds, without the start-up."""
        ...


async def measured(bench: Bench) -> list[Figure]:
    """A chain alone first, then chains in rounds, with plain tasks between them, then fan-outs in rounds."""
    bench.versions |= await install()
    bench.say(f"PostgreSQL, the same for all: {await _durability(bench.servers.database('dbos'))}")
    postgres, rabbitmq = await bench.ours("postgres"), await bench.ours("rabbitmq")
    dbos = Dbos(bench.servers, "chain")
    await dbos.prepare()
    chains: dict[str, Chains] = {
        "postgres": Workflows(postgres, "chain"),
        "dbos": dbos,
        "rabbitmq": Workflows(rabbitmq, "chain"),
        "celery": Canvas(bench.servers, "chain"),
        "celery_two_children": Canvas(bench.servers, "chain", children=2),
    }
    figures = [await _alone(bench, word, system) for word, system in chains.items()]
    plain: dict[str, System] = {"postgres_plain": postgres, "rabbitmq_plain": rabbitmq}
    outcome = await _rounds(bench, {**chains, **plain}, "steps of chains, or plain tasks, per second", CHAINS_BUDGET)
    figures += _rates("workflow_steps_per_s", outcome, chains)
    figures += _chain_ratios(outcome, {word: system.name for word, system in {**chains, **plain}.items()})
    return figures + await _fan_outs(bench, postgres, rabbitmq)


def _chain_ratios(outcome: Outcome, names: Mapping[str, str]) -> list[Figure]:
    """Over DBOS with PostgreSQL alone, over Celery with a broker; and what a step costs over what a plain task does."""

    def ratio(ours: str, theirs: str) -> float:
        return round(median(outcome.ratios(names[ours], names[theirs])), 3)

    return [
        Figure("workflow_steps_vs_dbos", ratio("postgres", "dbos"), "ratio", "higher"),
        Figure("workflow_steps_vs_celery_chain", ratio("rabbitmq", "celery"), "ratio", "higher"),
        Figure("workflow_step_overhead_ratio", ratio("rabbitmq_plain", "rabbitmq"), "ratio", "lower"),
        Figure("workflow_step_overhead_ratio_postgres", ratio("postgres_plain", "postgres"), "ratio", "lower"),
    ]


async def _fan_outs(bench: Bench, postgres: Carillon, rabbitmq: Carillon) -> list[Figure]:
    systems: dict[str, System] = {
        "postgres": Workflows(postgres, "fan_out"),
        "dbos": Dbos(bench.servers, "fan_out"),
        "rabbitmq": Workflows(rabbitmq, "fan_out"),
        "celery": Canvas(bench.servers, "fan_out"),
    }
    outcome = await _rounds(bench, systems, f"steps of a fan-out of {FAN_OUT:,} per second", FAN_OUT_BUDGET)
    return _rates("workflow_fan_out_per_s", outcome, systems)


async def _alone(bench: Bench, word: str, system: Chains) -> Figure:
    took = median(await system.alone_ms(ALONE))
    bench.say(f"a chain alone   {system.name:<40} {took:>8.1f} ms")
    return Figure(f"workflow_chain_ms_{word}", round(took, 2), "ms", "lower")


async def _rounds(bench: Bench, systems: Mapping[str, System], unit: str, budget: float) -> Outcome:
    outcome = await compare(list(systems.values()), bench.rounds, budget, bench.say, SMALLEST)
    bench.say("\n" + rates_table(outcome, unit) + "\n")
    return outcome


def _rates(figure: str, outcome: Outcome, systems: Mapping[str, System]) -> list[Figure]:
    """Median rates, by the words that name the systems."""
    return [
        Figure(f"{figure}_{word}", round(outcome.median(system.name), 1), "per s", "higher")
        for word, system in systems.items()
    ]


async def _durability(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(DURABILITY)
    finally:
        await connection.close()
    return ", ".join(f"{name} {value}" for name, value in dict(row or {}).items())
