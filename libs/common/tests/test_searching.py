"""Searching runs: every filter, what is rare far back in time, and searches that would take too long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.errors import InvalidArgumentsError, SearchTooWideError
from carillon.ids import new_id
from carillon.ledger import pages
from carillon.ledger.history import Cursor, History, Search
from carillon.ledger.records import TERMINAL
from carillon.ledger.search import condition
from carillon.ledger.typed import typed_search
from carillon.settings import sqlalchemy_url

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
WORKER, PARENT = new_id(), new_id()


class Past:
    """Runs as they were, put where they belong."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], history: History) -> None:
        self.connection = connection
        self.history = history

    async def run(self, **columns: Any) -> UUID:
        row = {
            "id": new_id(), "domain": "shop", "task": "shop.add", "state": "completed", "args": "{}",
            "created_at": NOON, "started_at": NOON, "finished_at": NOON + SECOND,
        } | columns  # fmt: skip
        if row["state"] in TERMINAL:
            row["ended_on"] = row["finished_at"].date()
        else:
            row["finished_at"] = None
        names, numbers = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await self.connection.execute(f"insert into carillon.runs ({names}) values ({numbers})", *row.values())
        return row["id"]

    async def found(self, **search: Any) -> list[UUID]:
        return [row["id"] for row in await self.history.search(Search(**search))]


@pytest.fixture
async def past(ledger_url: str) -> AsyncIterator[Past]:
    engine = create_async_engine(sqlalchemy_url(ledger_url))
    connection = await asyncpg.connect(ledger_url)
    yield Past(connection, History(engine))
    await connection.execute("truncate carillon.runs, carillon.selections, carillon.selected")
    await connection.close()
    await engine.dispose()


@pytest.mark.parametrize(
    ("search", "fits", "others"),
    [
        ({"args": {"order": [17]}}, {"args": '{"order": 17}'}, [{"args": '{"order": "17"}'}, {"args": '{"o": 17}'}]),
        ({"args": {"a.b": [1, "1"]}}, {"args": '{"a": {"b": "1", "c": 2}}'}, [{"args": '{"a": {"b": 2}}'}]),
        ({"args": {"a": [True], "b": [None]}}, {"args": '{"a": true, "b": null}'}, [{"args": '{"a": true, "b": 0}'}]),
        ({"labels": {"a": "1"}}, {"labels": '{"a": "1", "b": "2"}'}, [{"labels": '{"b": "1"}'}, {}]),
        ({"worker": WORKER}, {"worker_id": WORKER}, [{"worker_id": PARENT}, {}]),
        ({"parent": PARENT}, {"parent_id": PARENT}, [{"parent_id": WORKER}, {}]),
        ({"replay_of": PARENT}, {"replay_of": PARENT}, [{}]),
        ({"unique_key": "k"}, {"unique_key": "k"}, [{"unique_key": "l"}, {}]),
        ({"priority": 3}, {"priority": 3}, [{"priority": 1}]),
        (
            {"fingerprint": "f"},
            {"state": "failed", "error": '{"fingerprint": "f"}'},
            [{"state": "failed", "error": '{"fingerprint": "g"}'}, {"state": "failed"}],
        ),
        ({"longer": 2 * SECOND}, {"finished_at": NOON + 2 * SECOND}, [{}, {"state": "running"}]),
        ({"shorter": SECOND}, {"finished_at": NOON + SECOND / 2}, [{}, {"started_at": None}]),
        (
            {"finished_since": NOON + 5 * SECOND, "finished_until": NOON + 6 * SECOND},
            {"finished_at": NOON + 5 * SECOND},
            [{"finished_at": NOON + 6 * SECOND}, {}, {"state": "running"}],
        ),
        ({"states": ["failed", "running"]}, {"state": "running"}, [{}]),
        ({"states": ["running"], "longer": SECOND}, {"state": "running"}, [{"state": "queued"}, {}]),
        ({"domain": "shop", "task": "shop.pack"}, {"task": "shop.pack"}, [{}, {"task": "shop.pack", "domain": "x"}]),
    ],
)
async def test_a_filter_finds_what_fits_and_nothing_else(past, search, fits, others):
    for other in others:
        await past.run(**other)
    wanted = await past.run(**fits)

    assert await past.found(**search) == [wanted]
    assert [row["id"] async for row in _chosen(past, Search(**search))] == [wanted]


async def _chosen(past: Past, search: Search) -> AsyncIterator[asyncpg.Record]:
    """What the same condition finds where asyncpg asks it, as acting on many runs does."""
    sql, values = condition(search)
    for row in await past.connection.fetch(f"select r.id from carillon.runs r where {sql}", *values):
        yield row


async def test_what_is_rare_is_found_far_behind_what_is_frequent(past):
    now = datetime.now(UTC)
    await past.connection.execute(
        "insert into carillon.runs (id, ended_on, domain, task, state, args, created_at, finished_at) "
        "select gen_random_uuid(), $1::date, 'shop', 'shop.add', 'completed', '{}', $1, $1 "
        "from generate_series(1, $2)",
        now, pages.GLANCE,
    )  # fmt: skip
    ages = [timedelta(0), timedelta(hours=3), timedelta(days=1), timedelta(days=6), timedelta(days=60)]
    wanted = []
    for age in ages:
        moment = now - age - SECOND
        wanted.append(await past.run(args='{"order": 17}', created_at=moment, finished_at=moment + SECOND))

    assert await past.found(args={"order": [17]}) == wanted
    assert await past.found(args={"order": [17]}, limit=2) == wanted[:2]
    assert await past.found(args={"order": [17]}, since=now - timedelta(days=2)) == wanted[:3]
    assert await past.found(args={"order": [17]}, until=now - timedelta(hours=20)) == wanted[2:]
    after = Cursor(now - ages[1] - SECOND, wanted[1])
    assert await past.found(args={"order": [17]}, after=after) == wanted[2:]


async def test_pages_of_a_filter_are_stable_while_runs_arrive(past):
    made = [await past.run(labels='{"a": "1"}', created_at=NOON - n * SECOND) for n in range(7)]

    seen: list[UUID] = []
    after = None
    while page := await past.history.search(Search(labels={"a": "1"}, after=after, limit=3)):
        seen += [row["id"] for row in page]
        after = Cursor(page[-1]["created_at"], page[-1]["id"])
        await past.run(labels='{"a": "1"}', created_at=NOON + SECOND)

    assert seen == made


async def test_a_search_without_end_says_how_to_narrow_it(past, monkeypatch):
    monkeypatch.setattr(pages, "MOST_SECONDS", 0.05)
    async with past.connection.transaction():
        await past.connection.execute("lock table carillon.runs in access exclusive mode")
        with pytest.raises(SearchTooWideError, match="narrow it"):
            await past.history.search(Search())

    assert await past.found() == []


@pytest.mark.parametrize(
    "search",
    [
        {"states": ["lost"]},
        {"args": {"": [1]}},
        {"args": {"a..b": [1]}},
        {"args": {"a": []}},
        {"args": {".".join("abcdefghijk"): [1]}},
        {"since": NOON, "until": NOON},
        {"finished_since": NOON, "finished_until": NOON - SECOND},
        {"longer": SECOND, "shorter": SECOND},
        {"args": {"a": [object()]}},
        {"labels": {"a": "\0"}},
    ],
)
def test_a_search_that_means_nothing_is_refused(search):
    with pytest.raises(InvalidArgumentsError):
        Search(**search)


def test_words_mean_a_search():
    written = typed_search(
        {
            "state": ["failed"], "task": "shop.add", "label": ["a:b:c"], "arg": ["order:17", 'x.y:"17"', "z:hay"],
            "since": "2026-03-01", "finished_until": "2026-03-02T01:00:00+01:00", "longer": 1.5, "priority": "high",
            "worker": str(WORKER),
        }
    )  # fmt: skip

    assert written == Search(
        states=("failed",),
        task="shop.add",
        labels={"a": "b:c"},
        args={"order": (17, "17"), "x.y": ("17",), "z": ("hay",)},
        since=datetime(2026, 3, 1, tzinfo=UTC),
        finished_until=datetime(2026, 3, 2, tzinfo=UTC),
        longer=1.5 * SECOND,
        priority=2,
        worker=WORKER,
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"colour": "red"}, "there is no filter 'colour'"),
        ({"since": "yesterday"}, "since is no moment"),
        ({"until": "0001-01-01T00:00:00+23:00"}, "until is no moment"),
        ({"worker": "7"}, "worker is no id"),
        ({"label": ["a"]}, "label is a name, a colon and a value"),
        ({"arg": ["a:1", "a:2"]}, "arg names a twice"),
        ({"arg": ['a:"\\u0000"']}, "NUL"),
        ({"longer": float("inf")}, "longer is a number"),
        ({"priority": "first"}, "priority is one of"),
    ],
)
def test_words_that_do_not_fit_are_named(words, told):
    with pytest.raises(InvalidArgumentsError, match=told):
        typed_search(words)
