"""The days of ended runs: made from any day on, and indexed for searching once they are over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from carillon.ledger import days

INDEXES = """
select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = to_regclass($1) and i.indisvalid and c.relname ~ '_(domain|worker)$' order by 1
"""


@pytest.fixture
async def connection(ledger_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    opened = await asyncpg.connect(ledger_url)
    yield opened
    await opened.close()


async def test_a_day_is_indexed_for_searching_when_it_is_over(connection):
    today = datetime.now(UTC).date()
    over = today - timedelta(days=2)
    await days.make(connection, since=over)

    made = await days.index(connection)
    again = await days.index(connection)

    wanted = [f"runs_d{over:%Y%m%d}_{name}" for name in ("domain", "worker")]
    assert set(wanted) <= set(made)
    assert again == []
    assert [row[0] for row in await connection.fetch(INDEXES, f"carillon.runs_d{over:%Y%m%d}")] == wanted
    assert await connection.fetch(INDEXES, f"carillon.runs_d{today:%Y%m%d}") == []


async def test_an_index_that_was_broken_off_is_made_again(connection):
    over = datetime.now(UTC).date() - timedelta(days=2)
    await days.make(connection, since=over)
    await days.index(connection)
    name = f"runs_d{over:%Y%m%d}_worker"
    await connection.execute(
        "update pg_index set indisvalid = false where indexrelid = to_regclass($1)", f"carillon.{name}"
    )

    assert await days.index(connection) == [name]


async def test_two_do_not_index_together(connection, ledger_url):
    other = await asyncpg.connect(ledger_url)
    await days.make(connection, since=datetime.now(UTC).date() - timedelta(days=3))
    await other.execute("select pg_advisory_lock($1)", days.LOCK_INDEXES)

    refused = await days.index(connection)
    await other.close()

    assert refused == []
