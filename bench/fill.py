"""Putting rows into the ledger by SQL, where submitting so many would take longer than what is measured.

This is the one place of the benchmark that knows the columns of `carillon.runs` and `carillon.attempts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

    from bench.ledger_facts import LedgerFacts

#: Rows of one statement: a bounded transaction, and something to interrupt.
CHUNK = 100_000

#: Runs that wait in the ledger and that no transport holds: $1 of them, numbered from $2 on. Their ids are such as a
#: submit makes, UUIDs of version 7, one each millisecond: by id they lie in the table in the order in which they came.
WAITING = """
insert into carillon.runs (id, domain, task, state, args, labels, priority, run_at, actor)
select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint + n), 12, '0')
        || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid,
       'bench', 'bench.noop', 'queued', jsonb_build_object('number', n), '{}', 1, now(), 'fill'
from generate_series($2::bigint, $2::bigint + $1::bigint - 1) as n
"""

#: Runs that ended: $1 of them, numbered from $2 on, one each second back from now minus $3. Of a thousand one failed; a
#: fifth is of a rarer task; the label `shard` has 1,000 values.
ENDED = """
insert into carillon.runs (
    id, ended_on, domain, task, state, args, labels, priority, run_at, actor, created_at, started_at, finished_at,
    result
)
select gen_random_uuid(), (made at time zone 'UTC')::date, 'bench',
       case when n % 5 = 0 then 'bench.rare' else 'bench.noop' end,
       case when n % 1000 = 0 then 'failed' else 'completed' end,
       jsonb_build_object('number', n), jsonb_build_object('shard', (n % 1000)::text), 1, made, 'fill',
       made, made + interval '5 ms', made + interval '10 ms', '1'
from generate_series($2::bigint, $2::bigint + $1::bigint - 1) as n,
     lateral (select now() - $3::interval - n * interval '1 second' / 10 as made) as at
"""


async def fill(connection: asyncpg.Connection[asyncpg.Record], statement: str, count: int, *arguments: object) -> None:
    """Run a statement of this module until it has made `count` rows, then let PostgreSQL count them."""
    for first in range(0, count, CHUNK):
        await connection.execute(statement, min(CHUNK, count - first), first, *arguments, timeout=120)
    await connection.execute("vacuum analyze carillon.runs", timeout=300)


async def fill_and_wake(facts: LedgerFacts, count: int) -> None:
    """Put runs into the ledger and tell the workers, as a submit does."""
    await fill(facts.connection, WAITING, count)
    await facts.connection.execute("select pg_notify('carillon_runs', 'bench')")
