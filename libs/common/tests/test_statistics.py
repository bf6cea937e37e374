"""Statistics: counts, rates and spreads of a window, and of a past too long to be counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.errors import InvalidArgumentsError
from carillon.ledger import days
from carillon.ledger import statistics as statistics_module
from carillon.ledger.history import History
from carillon.ledger.statistics import Bucket, Spread, Window
from carillon.settings import sqlalchemy_url

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
HOUR = timedelta(hours=1)
#: $1 runs of a task in a state, one each second from $4 on, each due a second before it started and 2 s long.
ENDED = """
insert into carillon.runs (id, ended_on, domain, task, state, args, created_at, run_at, started_at, finished_at)
select gen_random_uuid(), (at at time zone 'UTC')::date, split_part($2, '.', 1), $2, $3, '{}',
       at - interval '1 hour', at - interval '3 seconds', at - interval '2 seconds', at
from generate_series(0, $1 - 1) n, lateral (select $4::timestamptz + n * interval '1 second' as at) a
"""


@pytest.fixture
async def connection(ledger_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    opened = await asyncpg.connect(ledger_url)
    await days.make(opened, since=NOON.date())
    yield opened
    await opened.execute("truncate carillon.runs")
    await opened.close()


@pytest.fixture
async def history(ledger_url: str) -> AsyncIterator[History]:
    engine = create_async_engine(sqlalchemy_url(ledger_url))
    yield History(engine)
    await engine.dispose()


async def test_a_window_is_counted_by_task_state_and_minute(connection, history):
    await connection.execute(ENDED, 90, "shop.add", "completed", NOON)
    await connection.execute(ENDED, 30, "shop.add", "failed", NOON + HOUR / 2)
    await connection.execute(ENDED, 6, "mail.send", "completed", NOON)
    await connection.execute(ENDED, 1, "shop.add", "completed", NOON + HOUR)
    await connection.execute(
        "insert into carillon.runs (id, domain, task, state, args) "
        "values (gen_random_uuid(), 'shop', 'shop.add', 'queued', '{}')"
    )

    found = await history.statistics(Window(since=NOON, until=NOON + HOUR))

    assert found.share == 1
    assert found.total.counts == {"completed": 96, "failed": 30}
    assert (found.total.per_hour, found.total.per_minute) == (126, 2.1)
    assert [task.task for task in found.tasks] == ["shop.add", "mail.send"]
    assert found.tasks[0].total.failure_rate == 0.25
    assert found.tasks[0].duration == Spread(2, 2, 2)
    assert found.tasks[0].wait == Spread(1, 1, 1)
    assert found.buckets == [
        Bucket(NOON, {"completed": 66}),
        Bucket(NOON + HOUR / 60, {"completed": 30}),
        Bucket(NOON + HOUR / 2, {"failed": 30}),
    ]
    assert found.live == {"queued": 1}


async def test_what_was_retried_and_how_long_it_all_took_is_summed_by_task(connection, history):
    await connection.execute(ENDED, 5, "shop.add", "completed", NOON)
    await connection.execute(ENDED, 2, "mail.send", "failed", NOON)
    # The third attempt after two failures, the second after a snooze, and a run that ended before it started.
    for attempt, uncounted, started in ((3, 0, "- interval '30 seconds'"), (2, 1, ""), (1, 0, "+ null::interval")):
        await connection.execute(
            "insert into carillon.runs (id, ended_on, domain, task, state, args, attempt, uncounted, started_at, "
            f"finished_at) values (gen_random_uuid(), $1, 'mail', 'mail.send', 'cancelled', '{{}}', $2, $3, "
            f"$4::timestamptz {started}, $4)",
            NOON.date(), attempt, uncounted, NOON,
        )  # fmt: skip

    found = await history.statistics(Window(since=NOON, until=NOON + HOUR))

    assert (found.total.retried, found.total.seconds) == (1, 44)
    told = {task.task: (task.total.retried, task.total.seconds) for task in found.tasks}
    assert told == {"shop.add": (0, 10), "mail.send": (1, 34)}


async def test_one_task_and_one_domain_are_counted_by_themselves(connection, history):
    await connection.execute(ENDED, 3, "shop.add", "completed", NOON)
    await connection.execute(ENDED, 2, "mail.send", "cancelled", NOON)

    of_task = await history.statistics(Window(since=NOON - 2 * HOUR, until=NOON + 2 * HOUR, task="shop.add"))
    of_domain = await history.statistics(Window(since=NOON, until=NOON + HOUR, domain="mail"))

    assert of_task.total.counts == {"completed": 3}
    assert of_task.buckets == [Bucket(NOON, {"completed": 3})]
    assert of_domain.total.counts == {"cancelled": 2}
    assert of_domain.total.failure_rate is None


async def test_of_a_long_past_a_share_is_read_and_said(connection, history, monkeypatch):
    monkeypatch.setattr(statistics_module, "MOST_BYTES", 500_000)
    await connection.execute(ENDED, 20_000, "shop.add", "completed", NOON - 10 * HOUR)
    await connection.execute("update carillon.runs set attempt = 2")

    found = await history.statistics(Window(since=NOON - 11 * HOUR, until=NOON + 11 * HOUR))

    assert 0.05 < found.share < 0.5
    assert found.total.counts["completed"] == pytest.approx(20_000, rel=0.3)
    assert found.total.seconds == pytest.approx(2 * found.total.counts["completed"], abs=4)
    assert found.total.retried == pytest.approx(found.total.counts["completed"], abs=1)
    assert found.tasks[0].duration == Spread(2, 2, 2)


async def test_nothing_is_nothing(history):
    found = await history.statistics(Window(since=NOON - 300 * HOUR, until=NOON - 299 * HOUR))

    assert (found.total.counts, found.total.failure_rate, found.tasks, found.buckets) == ({}, None, [], [])


@pytest.mark.parametrize("until", [NOON, NOON - HOUR, NOON + timedelta(days=32)])
def test_a_window_without_bounds_is_refused(until):
    with pytest.raises(InvalidArgumentsError, match="at most 31 days"):
        Window(since=NOON, until=until)
