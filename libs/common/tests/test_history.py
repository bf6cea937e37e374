"""Reading the ledger: searches, pages whose rows share a moment, and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.ids import new_id
from carillon.ledger.history import MOST_ROWS, Cursor, EventCount, History, RunCount, Search
from carillon.ledger.records import TERMINAL
from carillon.settings import sqlalchemy_url

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
async def engine(ledger_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(sqlalchemy_url(ledger_url))
    yield engine
    async with engine.begin() as connection:
        await connection.execute(text("truncate carillon.runs, carillon.events, carillon.workers"))
    await engine.dispose()


@pytest.fixture
def history(engine: AsyncEngine) -> History:
    return History(engine)


async def run(engine: AsyncEngine, **columns: object) -> UUID:
    row = {
        "id": new_id(),
        "domain": "shop",
        "task": "shop.add",
        "state": "queued",
        "args": "{}",
        "labels": "{}",
        "created_at": NOON,
        "started_at": None,
        "finished_at": None,
        "error": None,
    } | columns
    if row["state"] in TERMINAL:
        row["ended_on"] = (row["finished_at"] or row["created_at"]).date()
    values = ", ".join(f"cast(:{name} as jsonb)" if name in {"args", "labels", "error"} else f":{name}" for name in row)
    async with engine.begin() as connection:
        await connection.execute(text(f"insert into carillon.runs ({', '.join(row)}) values ({values})"), row)
    return row["id"]


async def found(history: History, **search: object) -> list[UUID]:
    return [row["id"] for row in await history.search(Search(**search))]


async def test_every_part_of_a_search_must_hold(engine, history):
    wanted = await run(engine, state="failed", labels='{"customer": "7", "tier": "gold"}', task="shop.pack")
    await run(engine, state="failed", labels='{"customer": "7"}', task="shop.pack", domain="other")
    await run(engine, state="failed", labels='{"customer": "8"}', task="shop.pack")
    await run(engine, state="completed", labels='{"customer": "7"}', task="shop.pack")
    await run(engine, state="failed", labels='{"customer": "7"}', task="shop.add")

    ids = await found(
        history, states=["failed", "cancelled"], domain="shop", task="shop.pack", labels={"customer": "7"}
    )

    assert ids == [wanted]


async def test_a_span_of_time_has_its_beginning_and_not_its_end(engine, history):
    hours = [await run(engine, created_at=NOON + timedelta(hours=hour)) for hour in range(4)]

    ids = await found(history, since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=3))

    assert ids == [hours[2], hours[1]]


async def test_pages_show_every_run_once_even_if_all_were_made_in_one_moment(engine, history):
    made = {await run(engine) for _ in range(23)}
    later = await run(engine, created_at=NOON + timedelta(seconds=1))
    earlier = await run(engine, created_at=NOON - timedelta(seconds=1))

    seen, after = [], None
    while page := await history.search(Search(after=after, limit=5)):
        assert len(page) <= 5
        seen += [row["id"] for row in page]
        after = Cursor(page[-1]["created_at"], page[-1]["id"])

    assert (seen[0], seen[-1]) == (later, earlier)
    assert len(seen) == 25
    assert set(seen[1:-1]) == made
    assert seen[1:-1] == sorted(made, reverse=True)


async def test_a_run_that_arrives_between_two_pages_moves_nothing(engine, history):
    made = [await run(engine, created_at=NOON + timedelta(seconds=second)) for second in range(6)]

    first = await history.search(Search(limit=3))
    await run(engine, created_at=NOON + timedelta(hours=1))
    second = await history.search(Search(limit=3, after=Cursor(first[-1]["created_at"], first[-1]["id"])))

    assert [row["id"] for row in [*first, *second]] == made[::-1]


async def test_no_page_is_larger_than_the_bound(engine, history):
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "insert into carillon.runs (id, domain, task, state, args) "
                "select gen_random_uuid(), 'shop', 'shop.add', 'queued', '{}' from generate_series(1, 600)"
            )
        )

    assert len(await history.search(Search(limit=10**9))) == MOST_ROWS == 500


async def test_a_list_shows_the_error_and_not_the_arguments(engine, history):
    failed = await run(engine, state="failed", args='{"password": "x"}', error='{"type": "E", "message": "it broke"}')

    (row,) = await history.search(Search())

    assert row["error"] == "it broke"
    assert not {"args", "result"} & row.keys()
    assert (await history.run(failed))["args"] == {"password": "x"}
    assert await history.run(new_id()) is None


async def test_counts_have_what_waits_of_any_age_and_what_is_new(engine, history):
    long_ago = NOON - timedelta(days=90)
    await run(engine, state="queued", created_at=long_ago)
    await run(engine, state="completed", created_at=long_ago)
    await run(engine, state="completed")
    await run(engine, state="completed")
    await run(engine, state="failed", domain="other")

    counts = await history.count_by_state(NOON)

    assert {(row["domain"], row["state"]): row["count"] for row in counts} == {
        ("shop", "queued"): 1,
        ("shop", "completed"): 2,
        ("other", "failed"): 1,
    }


async def test_runs_are_counted_in_the_hour_in_which_they_ended(engine, history):
    def ended(minutes: float, seconds: float = 2) -> dict[str, datetime]:
        end = NOON + timedelta(minutes=minutes)
        return {"finished_at": end, "started_at": end - timedelta(seconds=seconds)}

    await run(engine, state="completed", **ended(0))
    await run(engine, state="completed", **ended(59, seconds=3))
    await run(engine, state="completed", **ended(60))
    await run(engine, state="failed", **ended(30))
    await run(engine, state="cancelled", finished_at=NOON + timedelta(minutes=1))
    await run(engine, state="completed", **ended(120))
    await run(engine, state="running", started_at=NOON)

    counts = await history.count_runs_by_hour(NOON, NOON + timedelta(hours=2))

    assert sorted(counts, key=lambda c: (c.bucket, c.state)) == [
        RunCount(NOON, "shop.add", "cancelled", 1, 0.0),
        RunCount(NOON, "shop.add", "completed", 2, 5.0),
        RunCount(NOON, "shop.add", "failed", 1, 2.0),
        RunCount(NOON + timedelta(hours=1), "shop.add", "completed", 1, 2.0),
    ]


async def test_events_are_counted_in_the_hour_in_which_they_were_recorded(engine, history):
    async with engine.begin() as connection:
        for minutes, kind in [(0, "a.b.v1"), (59, "a.b.v1"), (60, "a.b.v1"), (5, "c.d.v1"), (120, "a.b.v1")]:
            await connection.execute(
                text(
                    "insert into carillon.events (id, event_id, source, type, time, data, recorded_at) "
                    "values (gen_random_uuid(), 'i', 's', :type, now(), '{}', :at)"
                ),
                {"type": kind, "at": NOON + timedelta(minutes=minutes)},
            )

    counts = await history.count_events_by_hour(NOON, NOON + timedelta(hours=2))

    assert sorted(counts, key=lambda c: (c.bucket, c.type)) == [
        EventCount(NOON, "a.b.v1", 2),
        EventCount(NOON, "c.d.v1", 1),
        EventCount(NOON + timedelta(hours=1), "a.b.v1", 1),
    ]
    assert [row["type"] for row in await history.recent_events(2)] == ["a.b.v1", "a.b.v1"]


async def test_workers_that_retired_or_fell_silent_are_not_shown(engine, history):
    async with engine.begin() as connection:
        for host, heartbeat, stopped in [
            ("here", "now()", "null"),
            ("gone", "now()", "now()"),
            ("silent", "now() - interval '1 hour'", "null"),
        ]:
            await connection.execute(
                text(
                    "insert into carillon.workers "
                    "(id, domain, host, pid, version, concurrency, heartbeat_at, stopped_at) "
                    f"values (gen_random_uuid(), 'shop', '{host}', 1, '0', 1, {heartbeat}, {stopped})"
                )
            )

    (worker,) = await history.live_workers()

    assert worker["host"] == "here"
    assert 0 <= worker["silent_seconds"] < 5
