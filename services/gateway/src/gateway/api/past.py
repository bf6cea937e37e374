"""What happened: the history of one run, and statistics of all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import get

from carillon.errors import InvalidArgumentsError
from carillon.ledger.statistics import MOST_WINDOW, Numbers, Spread, Statistics, Window
from carillon.platform import Platform
from carillon.shapes import moment
from gateway.api.past_views import (
    BucketView,
    ChangeView,
    NumbersView,
    RunHistory,
    SpreadView,
    StatisticsView,
    TaskNumbersView,
)
from gateway.api.requests import Asked, query, run_id
from gateway.api.runs import known_run
from gateway.errors import Fault, invalid
from gateway.filters import FILTERS

DAY = timedelta(days=1)
#: The query of `GET /api/v1/statistics`.
WINDOW: dict[str, Any] = {
    "type": "object",
    "properties": {
        "since": {
            **FILTERS["since"],
            "description": "Ended at or after this moment; a day before `until` if not said.",
        },
        "until": {
            **FILTERS["until"],
            "description": f"Ended before this moment; now if not said. At most {MOST_WINDOW.days} days later.",
        },
        "task": FILTERS["task"],
        "domain": FILTERS["domain"],
    },
    "additionalProperties": False,
}


@get("/api/v1/runs/{id:str}/history", tags=["Runs"])
async def run_history(id: str, platform: Platform) -> RunHistory:  # noqa: A002 - its name in the address
    """Every change of a run, first to last: what happened, when, by whom, and the state from then on."""
    run = await known_run(platform, run_id(id))
    changes = await platform.history.changes(run["id"])
    return RunHistory(id=run["id"], changes=[ChangeView(c.at, c.state, c.by, c.what) for c in changes])


@get("/api/v1/statistics", tags=["Runs"])
async def statistics(request: Asked, platform: Platform) -> StatisticsView:
    """How much ended in a window of time, how long it took and waited, and how often it failed.

    Of a long past a share of the runs is read, and the counts are estimates; `share` says how large it was.
    """
    asked = query(request, WINDOW)
    until = moment(asked["until"]) if "until" in asked else datetime.now(UTC)
    since = moment(asked["since"]) if "since" in asked else until - DAY
    try:
        window = Window(since=since, until=until, task=asked.get("task"), domain=asked.get("domain"))
    except InvalidArgumentsError as error:
        raise invalid(Fault("until", str(error))) from None
    return _view(await platform.history.statistics(window))


def _view(found: Statistics) -> StatisticsView:
    return StatisticsView(
        since=found.window.since,
        until=found.window.until,
        share=found.share,
        total=_numbers(found.total),
        tasks=[
            TaskNumbersView(
                task=task.task,
                total=_numbers(task.total),
                duration=_spread(task.duration),
                wait=_spread(task.wait),
            )
            for task in found.tasks
        ],
        buckets=[BucketView(bucket.at, dict(bucket.counts)) for bucket in found.buckets],
        live=dict(found.live),
    )


def _numbers(found: Numbers) -> NumbersView:
    return NumbersView(
        dict(found.counts), found.failure_rate, found.per_minute, found.per_hour, found.retried, found.seconds
    )


def _spread(found: Spread | None) -> SpreadView | None:
    return None if found is None else SpreadView(found.p50, found.p95, found.p99)
