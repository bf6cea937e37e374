"""`python -m bench`: measures Carillon, prints tables, enters the figures in `bench/results.json`.

Alone it runs the core comparison. `--only submit,http` runs other groups, `--only all` every one.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from bench import (
    backlog,
    core,
    costs,
    delays,
    http_submit,
    past,
    peers_comparison,
    processes,
    report,
    scaling,
    submit,
    waiting,
    workflows,
)
from bench.errors import BenchError
from bench.group import Bench, Group
from bench.machine import machine, versions
from bench.otlp_sink import collector
from bench.report import Figure
from bench.servers import servers

RESULTS = Path(__file__).parent / "results.json"
GROUPS = {
    "core": Group(core.measured, ("rabbitmq", "postgres", "celery"), 570),
    "peers": Group(peers_comparison.measured, ("rabbitmq", "postgres", "procrastinate"), 300),
    "submit": Group(submit.measured, ("rabbitmq",), 150),
    "http": Group(http_submit.measured, ("rabbitmq",), 180),
    "costs": Group(costs.measured, ("rabbitmq",), 200),
    "scaling": Group(scaling.measured, ("rabbitmq",), 200),
    "backlog": Group(backlog.measured, ("rabbitmq", "postgres"), 480),
    "delays": Group(delays.measured, ("rabbitmq", "postgres"), 120),
    "processes": Group(processes.measured, ("postgres",), 120),
    "workflows": Group(workflows.measured, ("rabbitmq", "postgres", "dbos"), 780),
    "waiting": Group(waiting.measured, ("rabbitmq",), 180),
    "past": Group(past.measured, ("postgres",), 600),
}


def say(text: str) -> None:
    """One line of progress or result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def measured(name: str, rounds: int) -> list[Figure]:
    """Run one group within its limit, enter its figures, and leave nothing behind.

    Raises `BenchError`, or `TimeoutError` when the limit is reached.
    """
    group, began = GROUPS[name], time.monotonic()
    say(f"\n{name}\n{'-' * len(name)}")
    async with asyncio.timeout(group.limit_seconds), servers(group.databases) as found:
        with collector() as traces:
            bench = Bench(found, traces, rounds)
            figures = await group.measure(bench)
    about, with_versions = machine(), {**versions(), **found.versions, **bench.versions}
    report.write_results(RESULTS, figures, about, with_versions)
    say(f"\nmachine: {report.facts_table(about)}\nversions: {report.facts_table(with_versions)}")
    say(f"{traces.requests} trace exports, {traces.received_bytes // 1024} KiB, were taken by the collector\n")
    say("\n".join(figure.line() for figure in figures))
    say(f"\nentered in {RESULTS.name} after {time.monotonic() - began:.0f} s")
    return figures


async def all_measured(names: list[str], rounds: int) -> int:
    """Run the groups one after the other; one that fails does not keep the next from running. Says how many failed."""
    task = asyncio.current_task()
    if task is not None:
        # On SIGTERM as on Ctrl-C: the private databases and the vhost are always removed.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    failed = 0
    for name in names:
        try:
            await measured(name, rounds)
        except BenchError as error:
            failed += 1
            sys.stderr.write(f"bench: {name}: {error}\n")
        except TimeoutError:
            failed += 1
            limit = GROUPS[name].limit_seconds
            sys.stderr.write(
                f"bench: {name}: not done within {limit:.0f} s; is the machine busy with something else?\n"
            )
    return failed


def main() -> int:
    """Run it; 1 when something could not be run, with one sentence why."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 6), help="rounds of each comparison")
    parser.add_argument("--only", default="core", help=f"groups, with commas: {', '.join(GROUPS)}; or all")
    given = parser.parse_args()
    names = list(GROUPS) if given.only == "all" else given.only.split(",")
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"there is no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    try:
        return 1 if asyncio.run(all_measured(names, given.rounds)) else 0
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(main())
