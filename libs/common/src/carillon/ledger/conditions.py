"""Submits under a condition: one run for a key, or after other runs. Each is a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from carillon.errors import InvalidArgumentsError, UniqueConflictError
from carillon.ledger.followups import resolve
from carillon.ledger.records import NewRun, Submitted, Unique
from carillon.ledger.statements.rows import bury, taken_out

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

#: Who looks whether a key is free, looks after the one before has committed: the lock is taken in a statement of its
#: own, because one statement sees the table as it was when it began to wait.
LOCK_KEY = "select pg_advisory_xact_lock(hashtextextended($1 || E'\\n' || $2, 0))"

#: The run that keeps others with its key out, newest first.
KEEPER = """
select id, state from carillon.runs
where unique_key = $2 and task = $1
  and (state in ('pending', 'queued', 'retrying', 'paused') or state = 'running' and $3
       or created_at > now() - $4::interval)
order by created_at desc limit 1
"""

ACCEPTED = "select exists(select from carillon.causes where id = $1)"

REPLACE = f"""
with gone as (
    delete from carillon.runs_live r where r.id = $1 and r.state in ('pending', 'queued', 'retrying', 'paused')
    returning {taken_out()}
), kept as ({
    bury(
        "gone",
        state="'cancelled'",
        error="jsonb_build_object('type', 'Replaced', 'message', 'the run ' || $2::text || ' took its place')",
    )
})
select id, awaited from gone
"""

#: Runs that live and are needed: nobody ends one of them before the need is written.
AWAIT = "update carillon.runs_live set awaited = true where id = any($1::uuid[]) returning id"
ENDED = "select id, state from carillon.runs where id = any($1::uuid[]) and ended_on < 'infinity'"
NEED = "insert into carillon.needs (run_id, on_id, outcome) select $1, * from unnest($2::uuid[], $3::text[])"


class Conditions:
    """Accepts what may not be accepted by itself."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def submit(self, run: NewRun) -> Submitted:
        """Accept a run that is unique or comes after others; it waits in the ledger.

        Raises what `Platform.submit` raises, `UniqueConflictError` where a run is there that keeps this one out and
        `on_conflict` is `reject`, and `InvalidArgumentsError` where `after` names a run that nobody knows.
        """
        replaced: Sequence[UUID] = ()
        async with self._ledger.transaction() as connection:
            if run.unique is not None:
                await connection.execute(LOCK_KEY, run.task, run.unique.key_for(run.args))
                keeper = await self._keeper(connection, run, run.unique)
                if keeper is not None:
                    gone = await self._replace(connection, run, keeper)
                    if not gone:
                        return Submitted(keeper["id"], created=False)
                    replaced = [row["id"] for row in gone if row["awaited"]]
            outcome = await self.accept(run, connection)
        await self._ledger.followups.follow(replaced)
        return outcome

    async def accept(self, run: NewRun, connection: Connection) -> Submitted:
        """Accept a run that may have to wait for others, in a transaction of the caller's."""
        (outcome,) = await self._ledger.accept([(run, False)], connection)
        if isinstance(outcome, Exception):
            raise outcome
        if run.after is not None and outcome.created:
            await self._need(connection, run, run.after.runs)
        return outcome

    async def _keeper(self, connection: Connection, run: NewRun, unique: Unique) -> asyncpg.Record | None:
        """The run that keeps this one out, if there is one; a submit that is sent again is not kept out."""
        key, until_ended = unique.key_for(run.args), unique.until == "ended"
        found = await connection.fetchrow(KEEPER, run.task, key, until_ended, unique.window)
        if found is None or found["id"] == run.id:
            return None
        if run.idempotency_key is not None and await connection.fetchval(ACCEPTED, run.id):
            return None
        return found

    async def _replace(self, connection: Connection, run: NewRun, keeper: asyncpg.Record) -> Sequence[asyncpg.Record]:
        """The run that had to make room; nothing when the keeper stays."""
        conflict = "keep" if run.unique is None else run.unique.on_conflict
        if conflict == "reject":
            raise kept_out(run, dict(keeper))
        return await connection.fetch(REPLACE, keeper["id"], str(run.id)) if conflict == "replace" else []

    async def _need(self, connection: Connection, run: NewRun, needed: Sequence[UUID]) -> None:
        wanted = sorted(set(needed))
        outcomes: dict[UUID, str | None] = {row["id"]: None for row in await connection.fetch(AWAIT, wanted)}
        outcomes |= {row["id"]: row["state"] for row in await connection.fetch(ENDED, wanted)}
        if unknown := [str(one) for one in wanted if one not in outcomes or one == run.id]:
            message = f"a run can wait for runs that were accepted before it; nobody knows {', '.join(unknown[:5])}"
            raise InvalidArgumentsError(message)
        await connection.execute(NEED, run.id, list(outcomes), list(outcomes.values()))
        await resolve(connection, [run.id])


def kept_out(run: NewRun, keeper: Mapping[str, Any]) -> UniqueConflictError:
    """The error of a run that another, by its id and state, keeps out."""
    message = f"the run {keeper['id']} of {run.task}, which is {keeper['state']}, has the same unique key"
    return UniqueConflictError(message, run=keeper["id"])
