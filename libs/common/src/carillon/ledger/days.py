"""The days of ended runs and attempts: a partition for each, made ahead and dropped whole.

Days are those of UTC. Until a day has a partition, its rows lie in the one called `unfiled`, and are moved when the day
is made; so a clock that jumps, or a platform that slept for a month, ends its runs all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import product
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

TABLES = ("runs", "attempts")
#: Days that are made ahead of their time.
AHEAD = 3
#: Making and dropping a day locks the whole table for an instant; whoever reads for longer makes it wait, and everybody
#: behind it, no longer than this. The next round tries again.
PATIENCE = "200ms"
#: Any two constants will do.
LOCK, LOCK_INDEXES = 0x0CA_A111_1, 0x0CA_A111_2

#: What is new in a GIN index gathers in a list that the end of some run has to sort in: a short one, often. With
#: PostgreSQL's own 4 MiB that end took 220 ms, with these KiB 30.
_SHORT = "with (gin_pending_list_limit = 256)"
#: What a day of ended runs is searched by from its beginning, beside what all runs have. Every run that ends pays for
#: these; bench/README.md has the price of each.
_INDEXES = (
    "create index on carillon.{day} (task, created_at desc, id desc)",
    "create index on carillon.{day} (state, created_at desc, id desc) where state <> 'completed'",
    "create index on carillon.{day} ((error->>'fingerprint'), created_at desc) where state = 'failed'",
    f"create index on carillon.{{day}} using gin (labels jsonb_path_ops) {_SHORT} where labels <> '{{{{}}}}'::jsonb",
    f"create index on carillon.{{day}} using gin (args jsonb_path_ops) {_SHORT}",
    "create index on carillon.{day} ((finished_at - started_at))",
    # Rows lie in the order in which they ended.
    "create index on carillon.{day} using brin (finished_at)",
)
#: What it is searched by besides once it is over, by the end of the index's name. No run pays for these.
_LATER = {
    "domain": "(domain, created_at desc, id desc)",
    "worker": "(worker_id, created_at desc, id desc) where worker_id is not null",
}
#: A day is over when whoever ended a run before midnight has committed.
STRAGGLING = timedelta(hours=1)
#: Seconds that one index may take; a day of ten million runs needs about twenty.
INDEX_SECONDS = 1800
_NEEDS_OF = "delete from carillon.needs n using carillon.{runs} r where n.run_id = r.id"
_STEPS_OF = "delete from carillon.steps s using carillon.{runs} r where s.workflow_id = r.id"
_SETTINGS = {"runs": "with (fillfactor = 95)", "attempts": ""}


async def make(connection: Connection, *, since: date | None = None) -> int:
    """Make the days that are missing, from today or an earlier day on; returns how many were made.

    Another process may be at it.
    """
    if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
        return 0
    try:
        today: date = await connection.fetchval("select (now() at time zone 'UTC')::date")
        first = min(today, since or today)
        all_days = range((today - first).days + AHEAD)
        wanted = {_name(table, first + timedelta(days=n)) for table in TABLES for n in all_days}
        missing = sorted(wanted - set(await _days(connection)))
        for name in missing:
            await _make(connection, name)
        return len(missing)
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK)


async def index(connection: Connection) -> list[str]:
    """Index what is over, without keeping anybody from reading or writing it; returns the names of the new indexes.

    This may take minutes, so it wants a connection of its own. What was broken off is begun again.
    """
    if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK_INDEXES):
        return []
    try:
        today: date = await connection.fetchval("select ((now() - $1::interval) at time zone 'UTC')::date", STRAGGLING)
        over = [name for name in await _days(connection) if name.startswith("runs_") and _day(name) < today]
        made = []
        for name, (end, definition) in product(sorted(over, reverse=True), _LATER.items()):
            if await _index(connection, name, f"{name}_{end}", definition):
                made.append(f"{name}_{end}")
        return made
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK_INDEXES)


async def _index(connection: Connection, day: str, name: str, definition: str) -> bool:
    """Make one index, unless it is there."""
    query = "select indisvalid from pg_index where indexrelid = to_regclass($1)"
    is_whole = await connection.fetchval(query, f"carillon.{name}")
    if is_whole:
        return False
    if is_whole is not None:
        await connection.execute(f"drop index concurrently carillon.{name}", timeout=INDEX_SECONDS)
    await connection.execute(f"create index concurrently {name} on carillon.{day} {definition}", timeout=INDEX_SECONDS)
    return True


async def drop(connection: Connection, age: timedelta) -> list[str]:
    """Drop the days that ended this long ago, and what is as old and lies in no day; returns the names of the days."""
    if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
        return []
    try:
        last: date = await connection.fetchval("select ((now() - $1::interval) at time zone 'UTC')::date", age)
        old = [name for name in await _days(connection) if _day(name) < last]
        for name in old:
            async with connection.transaction():
                if name.startswith("runs_"):
                    # What they waited for, and did; before the table is locked, so that nobody waits for this.
                    await connection.execute(_NEEDS_OF.format(runs=name))
                    await connection.execute(_STEPS_OF.format(runs=name))
                await connection.execute(f"set local lock_timeout = '{PATIENCE}'")
                await connection.execute(f"drop table carillon.{name}")
        for belongings in (_NEEDS_OF, _STEPS_OF):
            await connection.execute(f"{belongings.format(runs='runs_unfiled')} and r.ended_on < $1", last)
        for table in TABLES:
            await connection.execute(f"delete from carillon.{table}_unfiled where ended_on < $1", last)
        return old
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK)


async def _make(connection: Connection, name: str) -> None:
    table, day = name.partition("_")[0], _day(name)
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = '{PATIENCE}'")
        await connection.execute(
            f"create table carillon.{name} (like carillon.{table} including defaults including constraints) "
            f"{_SETTINGS[table]}"
        )
        await connection.execute(
            f"with moved as (delete from carillon.{table}_unfiled where ended_on = $1 returning *) "
            f"insert into carillon.{name} select * from moved",
            day,
        )
        for statement in _INDEXES if table == "runs" else ():
            await connection.execute(statement.format(day=name))
        await connection.execute(
            f"alter table carillon.{table} attach partition carillon.{name} "
            f"for values from ('{day}') to ('{day + timedelta(days=1)}')"
        )


async def _days(connection: Connection) -> Sequence[str]:
    rows = await connection.fetch("""
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent in ('carillon.runs'::regclass, 'carillon.attempts'::regclass)
    """)
    return [row["relname"] for row in rows if re.fullmatch(r"[a-z]+_d\d{8}", row["relname"])]


def _name(table: str, day: date) -> str:
    return f"{table}_d{day:%Y%m%d}"


def _day(name: str) -> date:
    digits = name[-8:]
    return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
