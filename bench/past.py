"""Reading, and forgetting, a long past: pages of the history over five million ended runs, and retention."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy.ext.asyncio import create_async_engine

from bench.fill import ENDED, fill
from bench.report import Figure
from carillon.ledger import days
from carillon.ledger.history import Cursor, History, Search
from carillon.ledger.ledger import Ledger
from carillon.settings import sqlalchemy_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.group import Bench

#: Ended runs among which is searched, and those that are old enough to be forgotten.
ENDED_RUNS, OLD_RUNS = 5_000_000, 1_000_000
#: The fill puts ten runs into each second.
APART = timedelta(seconds=0.1)
#: How often each page is read.
READINGS = 20
KEPT = timedelta(days=30)
#: The newest old run is this much older than what is kept.
MARGIN = timedelta(days=1)
_LEAST = UUID(int=0)


async def measured(bench: Bench) -> list[Figure]:
    """Fill by SQL, read pages through `History`, and forget through the ledger."""
    ours = await bench.ours("postgres")
    async with ours.facts() as facts:
        now = datetime.now(UTC)
        await days.make(facts.connection, since=(now - ENDED_RUNS * APART).date())
        await fill(facts.connection, ENDED, ENDED_RUNS, timedelta(0))
        indexed = await days.index(facts.connection)
        bench.say(f"{ENDED_RUNS} ended runs are there, and {len(indexed)} indexes of days that are over")
        await facts.connection.execute("vacuum analyze carillon.runs", timeout=300)
        page = await _page_p95_ms(bench, ours.database_url)
        await days.make(facts.connection, since=(now - KEPT - MARGIN - OLD_RUNS * APART).date())
        await fill(facts.connection, ENDED, OLD_RUNS, KEPT + MARGIN)
        retention = await _retention_seconds(bench, ours.database_url)
        await facts.forget()
    return [
        Figure("history_page_p95_ms", round(page, 1), "ms", "lower"),
        Figure("retention_1m_s", round(retention, 2), "s", "lower"),
    ]


async def _page_p95_ms(bench: Bench, url: str) -> float:
    """The 95th percentile over all kinds of pages; the slowest kind decides it, so each is told."""
    waited: list[float] = []
    async with _history(url) as history:
        for name, search in _searches(datetime.now(UTC)).items():
            own = []
            for _ in range(READINGS):
                began = time.perf_counter()
                rows = await history.search(search)
                own.append((time.perf_counter() - began) * 1e3)
            bench.say(f"page of {len(rows):>3} runs, {name:<32} p95 {_p95(own):>8.1f} ms")
            waited += own
    return _p95(waited)


def _searches(now: datetime) -> dict[str, Search]:
    """The filters that the interface has, on the first page and on one in the middle of what there is."""
    middle = now - ENDED_RUNS * APART / 2
    filters = {
        "everything": Search(),
        "one state": Search(states=["failed"]),
        "one task": Search(task="bench.rare"),
        "one domain": Search(domain="bench"),
        "one label": Search(labels={"shard": "17"}),
        "a label that no run has": Search(labels={"shard": "none"}),
        "an argument of one run": Search(args={"number": [ENDED_RUNS // 3]}),
        "an argument that no run has": Search(args={"number": [-1]}),
        "state and task": Search(states=["failed"], task="bench.rare"),
        "an hour": Search(since=middle - timedelta(hours=1), until=middle),
        "ended in an hour": Search(finished_since=middle - timedelta(hours=1), finished_until=middle),
        "a duration that no run had": Search(longer=timedelta(minutes=1)),
        "a worker that no run had": Search(worker=_LEAST),
    }
    # The least id: between rows of one moment the order does not matter here.
    deep = {f"{name}, deep": replace(search, after=Cursor(middle, _LEAST)) for name, search in filters.items()}
    return filters | deep


async def _retention_seconds(bench: Bench, url: str) -> float:
    """How long it takes until the ledger has forgotten what is too old."""
    async with Ledger(url, name="bench", carries_events=True) as ledger:
        began, forgotten = time.perf_counter(), 0
        while gone := await ledger.forget(KEPT):
            forgotten += gone
        took = time.perf_counter() - began
    bench.say(f"{forgotten} days were forgotten in {took:.1f} s")
    return took


@asynccontextmanager
async def _history(url: str) -> AsyncIterator[History]:
    engine = create_async_engine(sqlalchemy_url(url))
    try:
        yield History(engine)
    finally:
        await engine.dispose()


def _p95(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[94]
