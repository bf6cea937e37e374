"""What analytics does. Each task: compute rollups anew."""

from datetime import timedelta

from pydantic import AwareDatetime

from analytics.aggregate import Aggregator, Recomputed
from carillon import Tasks

tasks = Tasks("analytics")

#: A whole week of a busy ledger takes seconds; a locked table should not hold a run for hours.
TIMEOUT = timedelta(minutes=10)


@tasks.task(timeout=TIMEOUT, default=True)
async def aggregate_hourly_metrics(since: AwareDatetime | None = None, *, aggregator: Aggregator) -> Recomputed:
    """Count runs and events by the hour anew, from `since` or from what may have changed.

    Safe to run twice: each hour is replaced by what the ledger holds, never added to.
    """
    return await aggregator.hours(since)


@tasks.task(timeout=TIMEOUT)
async def aggregate_daily_metrics(since: AwareDatetime | None = None, *, aggregator: Aggregator) -> Recomputed:
    """Sum the hours of each day anew, of the days from `since` or of those whose hours changed.

    Safe to run twice: each day is replaced by the sum of its hours, never added to.
    """
    return await aggregator.days(since)
