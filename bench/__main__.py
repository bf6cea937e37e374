"""`python -m bench`: measures Carillon beside its peers, prints the table, writes `bench/results.json`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import celery_peer, report
from bench.errors import BenchError
from bench.machine import machine, versions
from bench.otlp_sink import Collector, collector
from bench.ours import Carillon
from bench.raw import Raw
from bench.report import Figure
from bench.rounds import Outcome, compare
from bench.servers import Servers, servers

RESULTS = Path(__file__).parent / "results.json"
#: The whole command stops by itself after this, cleaned up; in seconds.
LIMIT_SECONDS = 570.0
#: What the rounds may use of it.
ROUNDS_BUDGET = 380.0
DATABASES = ("rabbitmq", "postgres", "celery")


@dataclass
class Peers:
    """Every system of one comparison."""

    ours: Carillon
    raw: Raw
    redis: list[celery_peer.Celery]
    database: list[celery_peer.Celery]


def say(text: str) -> None:
    """One line of progress or result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def bench(rounds: int) -> None:
    """Measure everything once and write it down."""
    began = time.monotonic()
    peer_versions = await celery_peer.install()
    async with servers(DATABASES) as found:
        with collector() as traces:
            outcome, figures = await measured(found, traces, rounds)
            say(f"\n{traces.requests} trace exports, {traces.received_bytes // 1024} KiB, were taken by the collector")
    about, with_versions = machine(), {**versions(), **found.versions, **peer_versions}
    report.write_results(RESULTS, figures, about, with_versions)
    say(f"\nmachine: {report.facts_table(about)}\nversions: {report.facts_table(with_versions)}\n")
    say(report.rates_table(outcome) + "\n")
    say("\n".join(figure.line() for figure in figures))
    say(f"\nwritten to {RESULTS.name} after {time.monotonic() - began:.0f} s")


async def measured(found: Servers, traces: Collector, rounds: int) -> tuple[Outcome, list[Figure]]:
    """Latency on the idle platform first, then the rounds."""
    ours = Carillon(found, "rabbitmq", traces)
    await ours.prepare()
    figures = await latency("rabbitmq", ours) + await latency("postgres", await prepared(found, traces))
    peers = Peers(
        ours,
        Raw(found, await ours.delivery_bytes()),
        [celery_peer.over_redis(found, children) for children in (1, 2)],
        [celery_peer.over_database(found, children) for children in (1, 2)],
    )
    say(f"the body of a delivery has {peers.raw.body_bytes} bytes, of the floor's messages too")
    outcome = await compare([ours, peers.raw, *peers.redis, *peers.database], rounds, ROUNDS_BUDGET, say)
    return outcome, execution(outcome, peers) + figures


async def prepared(found: Servers, traces: Collector) -> Carillon:
    """Carillon with PostgreSQL as its transport."""
    ours = Carillon(found, "postgres", traces)
    await ours.prepare()
    return ours


async def latency(transport: str, ours: Carillon) -> list[Figure]:
    """Submit to start, as two figures."""
    p50, p99 = await ours.latency_ms()
    say(f"submit to start on {transport}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return [
        Figure(f"latency_{transport}_p50_ms", round(p50, 2), "ms", "lower"),
        Figure(f"latency_{transport}_p99_ms", round(p99, 2), "ms", "lower"),
    ]


def execution(outcome: Outcome, peers: Peers) -> list[Figure]:
    """Medians of the rounds' ratios. One worker process against one; Celery with two children is told as well."""

    def ratio(suffix: str, theirs: str) -> Figure:
        value = median(outcome.ratios(peers.ours.name, theirs))
        return Figure(f"execution_rabbitmq_vs_{suffix}", round(value, 3), "ratio", "higher")

    figures = [ratio("raw", peers.raw.name)]
    for suffix, settings in (("celery_redis", peers.redis), ("celery_db", peers.database)):
        one, two = settings
        figures.append(ratio(suffix, one.name))
        figures.append(ratio(f"{suffix}_two_children", two.name))
    return figures


async def bounded(rounds: int) -> None:
    """Stop at the limit and on SIGTERM as on Ctrl-C: the private databases and the vhost are always removed."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(LIMIT_SECONDS):
        await bench(rounds)


def main() -> int:
    """Run it; 1 when it could not be run, with one sentence why."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 6), help="rounds of the comparison")
    try:
        asyncio.run(bounded(parser.parse_args().rounds))
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    except TimeoutError:
        sys.stderr.write(f"bench: not done within {LIMIT_SECONDS:.0f} s; is the machine busy with something else?\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
