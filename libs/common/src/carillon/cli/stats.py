"""`carillon stats`: how much ended, how long it took, and how often it failed. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson

from carillon.cli.asking import asking
from carillon.cli.exits import OK, in_one_sentence
from carillon.cli.tables import print_table
from carillon.ledger.history import History
from carillon.ledger.statistics import Numbers, Spread, Statistics, TaskNumbers, Window
from carillon.ledger.typed import moment

STATES = ("completed", "failed", "cancelled", "partial")
COLUMNS = ("task", *STATES, "failed %", "retried", "per minute", "took p50", "p95", "p99", "waited p50", "p95", "p99")


class Asked(NamedTuple):
    """What is to be counted, as it was typed."""

    since: str | None
    until: str | None
    task: str | None
    domain: str | None


def show(asked: Asked, *, as_json: bool) -> int:
    """Count, and show a line for each task."""
    return in_one_sentence(lambda: asyncio.run(_show(_window(asked), as_json=as_json)))


async def _show(window: Window, *, as_json: bool) -> int:
    async with asking("ledger") as engine:
        found = await History(engine).statistics(window)
    if as_json:
        sys.stdout.write(f"{orjson.dumps(asdict(found), default=str).decode()}\n")
        return OK
    sys.stdout.write(f"{_heading(found)}\n\n")
    total = [["all", *_counted(found.total)]] if len(found.tasks) > 1 else []
    print_table(COLUMNS, [*(_line(task) for task in found.tasks), *total], "Nothing ended.")
    return OK


def _heading(found: Statistics) -> str:
    window, share = found.window, ""
    if found.share < 1:
        share = f", estimated from {found.share:.1%} of them"
    live = ", ".join(f"{count} {state}" for state, count in sorted(found.live.items())) or "nothing"
    return f"Ended from {window.since:%F %T} to {window.until:%F %T} UTC{share}. Now there is {live}."


def _line(task: TaskNumbers) -> list[object]:
    return [task.task, *_counted(task.total), *_spread(task.duration), *_spread(task.wait)]


def _counted(numbers: Numbers) -> list[object]:
    rate = "" if numbers.failure_rate is None else f"{numbers.failure_rate:.2%}"
    return [*(numbers.counts.get(state, "") for state in STATES), rate, numbers.retried, f"{numbers.per_minute:.2f}"]


def _spread(spread: Spread | None) -> list[str]:
    return ["", "", ""] if spread is None else [f"{value:.3f}" for value in (spread.p50, spread.p95, spread.p99)]


def _window(asked: Asked) -> Window:
    until = datetime.now(UTC) if asked.until is None else moment("until", asked.until)
    since = until - timedelta(days=1) if asked.since is None else moment("since", asked.since)
    return Window(since=since, until=until, task=asked.task, domain=asked.domain)
