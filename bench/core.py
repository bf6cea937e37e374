"""The core comparison: latency on the idle platform, then executions beside the floor and beside Celery."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench import celery_peer
from bench.peers_environment import install
from bench.raw import Raw
from bench.report import Figure, rates_table
from bench.rounds import compare

if TYPE_CHECKING:
    from bench.group import Bench
    from bench.ours import Carillon

#: What the rounds may use, in seconds.
ROUNDS_BUDGET = 330.0


async def measured(bench: Bench) -> list[Figure]:
    """Latency first, then the rounds."""
    bench.versions |= await install()
    ours = await bench.ours("rabbitmq")
    figures = await _latency(bench, "rabbitmq", ours) + await _latency(bench, "postgres", await bench.ours("postgres"))
    raw = Raw(bench.servers, await ours.delivery_bytes())
    bench.say(f"the body of a delivery has {raw.body_bytes} bytes, of the floor's messages too")
    peers = {
        "celery_redis": [celery_peer.over_redis(bench.servers, children) for children in (1, 2)],
        "celery_db": [celery_peer.over_database(bench.servers, children) for children in (1, 2)],
    }
    systems = [ours, raw, *(peer for settings in peers.values() for peer in settings)]
    outcome = await compare(systems, bench.rounds, ROUNDS_BUDGET, bench.say)
    bench.say("\n" + rates_table(outcome) + "\n")

    def ratio(suffix: str, theirs: str) -> Figure:
        value = median(outcome.ratios(ours.name, theirs))
        return Figure(f"execution_rabbitmq_vs_{suffix}", round(value, 3), "ratio", "higher")

    # One worker process against one; Celery with two children, which has both cores busy, is told as well.
    figures.append(ratio("raw", raw.name))
    for suffix, (one, two) in peers.items():
        figures += [ratio(suffix, one.name), ratio(f"{suffix}_two_children", two.name)]
    return figures


async def _latency(bench: Bench, transport: str, ours: Carillon) -> list[Figure]:
    """Submit to start, as two figures."""
    p50, p99 = await ours.latency_ms()
    bench.say(f"submit to start on {transport}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return [
        Figure(f"latency_{transport}_p50_ms", round(p50, 2), "ms", "lower"),
        Figure(f"latency_{transport}_p99_ms", round(p99, 2), "ms", "lower"),
    ]
