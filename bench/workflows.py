"""Workflows beside those of DBOS and Celery: chains of ten steps, alone and many at once, and a fan-out."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Protocol

import asyncpg

from bench.canvas_peer import Canvas
from bench.dbos_peer import Dbos
from bench.peers_environment import install
from bench.report import Figure, rates_table
from bench.rounds import compare
from bench.system import FAN_OUT, System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.group import Bench

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
    """A chain alone first, then chains in rounds, then fan-outs in rounds."""
    bench.versions |= await install()
    bench.say(f"PostgreSQL, the same for all: {await _durability(bench.servers.database('dbos'))}")
    dbos = Dbos(bench.servers, "chain")
    await dbos.prepare()
    celery, celery_two = (Canvas(bench.servers, "chain", children) for children in (1, 2))
    chains: dict[str, Chains] = {"dbos": dbos, "celery": celery, "celery_two_children": celery_two}
    figures = [await _alone(bench, word, system) for word, system in chains.items()]
    figures += await _rates(bench, "workflow_steps_per_s", chains, "steps of chains per second", CHAINS_BUDGET)
    fans: dict[str, System] = {"dbos": Dbos(bench.servers, "fan_out"), "celery": Canvas(bench.servers, "fan_out")}
    return figures + await _rates(
        bench, "workflow_fan_out_per_s", fans, f"steps of a fan-out of {FAN_OUT:,} per second", FAN_OUT_BUDGET
    )


async def _alone(bench: Bench, word: str, system: Chains) -> Figure:
    took = median(await system.alone_ms(ALONE))
    bench.say(f"a chain alone   {system.name:<40} {took:>8.1f} ms")
    return Figure(f"workflow_chain_ms_{word}", round(took, 2), "ms", "lower")


async def _rates(bench: Bench, figure: str, systems: Mapping[str, System], unit: str, budget: float) -> list[Figure]:
    """Rounds of all systems; their median rates, by the words that name them."""
    outcome = await compare(list(systems.values()), bench.rounds, budget, bench.say, SMALLEST)
    bench.say("\n" + rates_table(outcome, unit) + "\n")
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
