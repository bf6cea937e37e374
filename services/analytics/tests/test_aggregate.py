"""Buckets are what the ledger says, however often and however late they are computed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from analytics.aggregate import Aggregator
from analytics.counts import RememberedCounts, RememberedEvent, RememberedRun, RunCount
from analytics.rollups import Rollup
from analytics.store import Store
from analytics.time import DAY, HOUR, Span, floor_day, floor_hour

if TYPE_CHECKING:
    from conftest import Clock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVER = Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def filled(ledger: RememberedCounts, days: int = 3) -> None:
    """Put some hundred runs and events into the ledger, the same ones each time."""
    dice = random.Random(7)
    for _ in range(400):
        moment = NOON - timedelta(minutes=dice.randrange(days * 1440))
        ledger.runs.append(
            RememberedRun(moment, dice.choice(["backup.a", "reports.b"]), dice.choice(["completed", "failed"]), 0.25)
        )
        ledger.events.append(RememberedEvent(moment, dice.choice(["backup.completed.v1", "orders.paid.v1"])))


async def both(aggregator: Aggregator) -> None:
    await aggregator.hours()
    await aggregator.days()


async def test_computing_twice_gives_the_same_rows(
    aggregator: Aggregator, ledger: RememberedCounts, store: Store
) -> None:
    filled(ledger)
    await both(aggregator)
    first = await store.hourly(EVER), await store.daily(EVER)

    await both(aggregator)

    assert (await store.hourly(EVER), await store.daily(EVER)) == first
    assert sum(row.count for row in first[0]) == 800


async def test_each_hour_is_what_the_ledger_holds(
    aggregator: Aggregator, ledger: RememberedCounts, store: Store
) -> None:
    filled(ledger)

    await aggregator.hours()

    expected = Counter((floor_hour(run.time), run.task, run.state) for run in ledger.runs)
    runs = [row for row in await store.hourly(EVER) if row.kind == "run"]
    assert {(row.bucket, row.name, row.state): row.count for row in runs} == expected
    assert {row.state for row in await store.hourly(EVER) if row.kind == "event"} == {"said"}


async def test_each_day_is_the_sum_of_its_hours(aggregator: Aggregator, ledger: RememberedCounts, store: Store) -> None:
    filled(ledger)

    await both(aggregator)

    expected: Counter[tuple[object, ...]] = Counter()
    seconds: Counter[tuple[object, ...]] = Counter()
    for row in await store.hourly(EVER):
        expected[floor_day(row.bucket), row.kind, row.name, row.state] += row.count
        seconds[floor_day(row.bucket), row.kind, row.name, row.state] += row.seconds  # type: ignore[assignment]
    daily = await store.daily(EVER)
    assert {(row.bucket, row.kind, row.name, row.state): row.count for row in daily} == expected
    assert all(row.seconds == pytest.approx(seconds[row.bucket, row.kind, row.name, row.state]) for row in daily)


async def test_a_late_run_changes_only_its_bucket(
    aggregator: Aggregator, ledger: RememberedCounts, store: Store, clock: Clock
) -> None:
    filled(ledger)
    await both(aggregator)
    hours, days = set(await store.hourly(EVER)), set(await store.daily(EVER))
    late = NOON - timedelta(hours=30, minutes=10)
    ledger.runs.append(RememberedRun(late, "backup.a", "completed", 2.0))
    clock.now += HOUR

    await both(aggregator)

    changed = set(await store.hourly(EVER)) ^ hours
    assert {(row.bucket, row.name, row.state) for row in changed} == {(floor_hour(late), "backup.a", "completed")}
    assert {row.bucket for row in set(await store.daily(EVER)) ^ days} == {floor_day(late)}


async def test_a_series_that_is_gone_leaves_no_row_behind(
    aggregator: Aggregator, ledger: RememberedCounts, store: Store
) -> None:
    ledger.runs.append(RememberedRun(NOON, "backup.a", "running", 0))
    await both(aggregator)
    ledger.runs[0] = RememberedRun(NOON, "backup.a", "completed", 1.5)

    await both(aggregator)

    expected = [Rollup(NOON, "run", "backup.a", "completed", 1, 1.5)]
    assert await store.hourly(EVER) == expected
    assert await store.daily(EVER) == [Rollup(floor_day(NOON), "run", "backup.a", "completed", 1, 1.5)]


async def test_what_the_ledger_forgot_is_kept(
    aggregator: Aggregator, ledger: RememberedCounts, store: Store, clock: Clock
) -> None:
    filled(ledger, days=6)
    await both(aggregator)
    hours, days = await store.hourly(EVER), await store.daily(EVER)
    clock.now += timedelta(days=10)
    ledger.runs.clear()
    ledger.events.clear()

    await aggregator.hours(EVER.since)
    await aggregator.days(EVER.since)

    assert (await store.hourly(EVER), await store.daily(EVER)) == (hours, days)


async def test_only_hours_that_may_have_changed_are_read(aggregator: Aggregator, clock: Clock) -> None:
    first = await aggregator.hours()
    clock.now += HOUR
    second = await aggregator.hours()
    asked = await aggregator.hours(clock.now - timedelta(days=5))

    assert (first.buckets, second.buckets, asked.buckets) == (168, 50, 121)


async def test_days_are_computed_only_when_their_hours_were(aggregator: Aggregator, ledger: RememberedCounts) -> None:
    filled(ledger)
    await both(aggregator)

    again = await aggregator.days()
    asked = await aggregator.days(NOON - DAY)

    assert (again.buckets, asked.buckets) == (0, 2)


async def test_computing_at_the_same_time_gives_the_same_rows(
    aggregator: Aggregator, ledger: RememberedCounts, store: Store
) -> None:
    filled(ledger)

    await asyncio.gather(*(both(aggregator) for _ in range(6)))

    assert sum(row.count for row in await store.hourly(EVER)) == 800
    assert sum(row.count for row in await store.daily(EVER)) == 800


async def test_a_ledger_that_cannot_be_read_leaves_everything_as_it_was(
    ledger: RememberedCounts, store: Store, clock: Clock, aggregator: Aggregator
) -> None:
    class Silent(RememberedCounts):
        async def count_runs_by_hour(self, since: datetime, until: datetime) -> Sequence[RunCount]:
            raise ConnectionError

    filled(ledger)
    await both(aggregator)
    hours, watermark = await store.hourly(EVER), await store.watermark()
    clock.now += HOUR

    with pytest.raises(ConnectionError):
        await Aggregator(Silent(), store, late=HOUR, retention=7 * DAY, clock=clock).hours()

    assert (await store.hourly(EVER), await store.watermark()) == (hours, watermark)


async def test_the_event_carries_the_last_day_by_the_hour_and_fortnight_by_the_day(
    aggregator: Aggregator, ledger: RememberedCounts
) -> None:
    filled(ledger)
    await both(aggregator)

    event = await aggregator.recent("backup.completed.v1")

    assert event.watermark == NOON + timedelta(minutes=30)
    assert {row.grain for row in event.hourly} == {"hour"}
    assert min(row.bucket for row in event.hourly) == NOON - 23 * HOUR
    assert sum(row.count for row in event.daily) == 800


async def test_the_event_stays_small_when_there_are_many_tasks(
    aggregator: Aggregator, ledger: RememberedCounts
) -> None:
    ledger.runs = [
        RememberedRun(NOON - hour * HOUR, f"orders.task_{task}", "completed", 1.0)
        for hour in range(24)
        for task in range(60)
        for _ in range(1 + task)
    ]
    await both(aggregator)

    event = await aggregator.recent("backup.completed.v1")

    assert 400 < len(event.hourly) <= 500
    assert sum(row.count for row in event.hourly) == len(ledger.runs)
    assert {"orders.task_59", "(other)"} <= {row.name for row in event.hourly}
    assert "orders.task_0" not in {row.name for row in event.hourly}
