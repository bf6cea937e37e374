"""What follows the end of an awaited run: of those that need it, its workflow, who is called back, who cancelled it.

Whoever ends such a run follows it up at once; what a crash leaves undone, the sweeper finds by the mark `awaited`,
which is taken away in the transaction of what follows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog

from carillon.ledger.cancelling import cancel_all
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.statements.rows import bury, taken_out, wake

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

log = structlog.get_logger(__name__)

Row = Mapping[str, Any]

#: Writes, in the transaction, what calls back for these ended runs; returns what is to be done after the commit.
CallBack = Callable[[Sequence[Row], "Connection | None"], Awaitable[Callable[[], Awaitable[None]]]]

TAKE = """
update carillon.runs set awaited = false where id = any($1::uuid[]) and ended_on < 'infinity' and awaited
returning id, domain, task, state, attempt, callback_url, finished_at, cancel, step, error->>'message' as error
"""
FORGOTTEN = """
select id from carillon.runs where awaited and finished_at < now() - interval '3 seconds'
order by finished_at limit 500
"""
TELL_NEEDS = """
update carillon.needs n set outcome = e.state from unnest($1::uuid[], $2::text[]) as e(id, state)
where n.on_id = e.id and n.outcome is null returning n.run_id
"""

#: Taken in a statement of its own and in order: of two ends that free one run together, the second sees the first.
LOCK = "select id from carillon.runs_live where id = any($1::uuid[]) and state = 'pending' order by id for update"
PENDING = """
select r.id, r.after, count(*) as needs, count(n.outcome) as ended,
       count(*) filter (where n.outcome in ('completed', 'partial')) as good,
       min(n.on_id || case n.outcome when 'cancelled' then ', which was cancelled' else ', which failed' end)
           filter (where n.outcome not in ('completed', 'partial')) as first_bad
from carillon.runs_live r join carillon.needs n on n.run_id = r.id
where r.id = any($1::uuid[]) and r.state = 'pending' group by r.id, r.after
"""
LET_GO = f"""
with free as (
    update carillon.runs_live
    set state = 'queued', after = after || '{{"met": true}}',
        run_at = greatest(run_at, now() + make_interval(secs => (after->>'delay_seconds')::float8))
    where id = any($1::uuid[]) and state = 'pending' returning domain, run_at, dispatched_at, gated
)
{wake("free")}
"""
LET_DOWN = f"""
with down as (select * from unnest($1::uuid[], $2::text[]) as d(id, bad)),
gone as (
    delete from carillon.runs_live r using down d where r.id = any($1::uuid[]) and r.id = d.id and r.state = 'pending'
    returning {taken_out()}, d.bad
), kept as ({
    bury(
        "gone",
        state="'cancelled'",
        error="jsonb_build_object('type', 'NeedFailed', 'message', 'it needed the run ' || g.bad)",
    )
})
select id, awaited from gone
"""


class Followups:
    """Does what follows the end of runs."""

    def __init__(self, ledger: Ledger, call_back: CallBack) -> None:
        self._ledger = ledger
        self.call_back = call_back

    async def follow(self, ended: Sequence[UUID]) -> None:
        """Follow up ended runs, and those that end because of it; what cannot be now, a sweeper finds.

        Whoever ended them has committed that, and an error here would say that they had not.
        """
        try:
            await self._follow(ended)
        except (*SERVER_AWAY, asyncpg.PostgresError) as error:
            log.warning("ended runs wait for the sweeper to be followed up", runs=len(ended), error=repr(error))

    async def _follow(self, ended: Sequence[UUID]) -> None:
        while ended:
            async with self._ledger.transaction() as connection:
                taken = await connection.fetch(TAKE, list(ended))
                freed = await connection.fetch(TELL_NEEDS, [r["id"] for r in taken], [r["state"] for r in taken])
                next_ = await resolve(connection, [row["run_id"] for row in freed])
                if steps := [row["id"] for row in taken if row["step"] is not None]:
                    await self._ledger.workflows.tell(steps, connection)
                for row in taken:
                    if row["cancel"] is not None:
                        # It was asked to end while it executed, and may have submitted more until it had.
                        next_ += (await cancel_all(connection, [row["id"]], row["cancel"])).awaited
                called = [dict(row) for row in taken if row["callback_url"] is not None]
                afterwards = await self.call_back(called, connection) if called else None
            if afterwards is not None:
                await afterwards()
            ended = next_

    async def sweep(self) -> int:
        """Follow up what whoever ended it did not; returns how many runs those were."""
        left = [row["id"] for row in await self._ledger.pool.fetch(FORGOTTEN)]
        try:
            await self._follow(left)
        except asyncpg.DataError:
            # One of them asks for what cannot be done, and must not keep the others waiting.
            for run in left:
                await self._follow_alone(run)
        return len(left)

    async def _follow_alone(self, run: UUID) -> None:
        try:
            await self._follow([run])
        except asyncpg.DataError:
            log.exception("what follows the end of a run cannot be done", run=str(run))


async def resolve(connection: Connection, pending: Sequence[UUID]) -> list[UUID]:
    """Let pending runs go whose needs are met, cancel those whose needs cannot be; returns awaited ones of these."""
    if not pending:
        return []
    await connection.execute(LOCK, list(pending))
    go: list[UUID] = []
    down: list[tuple[UUID, str]] = []
    for row in await connection.fetch(PENDING, list(pending)):
        goes = verdict(dict(row))
        if goes:
            go.append(row["id"])
        elif goes is False:
            down.append((row["id"], row["first_bad"]))
    if go:
        await connection.execute(LET_GO, go)
    if not down:
        return []
    gone = await connection.fetch(LET_DOWN, [run for run, _ in down], [bad for _, bad in down])
    return [row["id"] for row in gone if row["awaited"]]


def verdict(row: Row) -> bool | None:
    """Whether a pending run may go: yes, never, or not yet (None).

    Of the row: its condition `after`, and of how many `needs` how many have `ended`, and how many of these `good`.
    """
    when, otherwise = row["after"]["when"], row["after"]["otherwise"]
    bad = row["ended"] - row["good"]
    all_ended = row["ended"] == row["needs"]
    if when == "ended":
        return True if all_ended else None
    met = row["good"] > 0 if when == "any" else row["good"] == row["needs"]
    if met:
        return True
    hopeless = all_ended if when == "any" else bad > 0
    if hopeless and otherwise == "run":
        # The others are waited for all the same: what runs after failures may want to see them all.
        return True if all_ended else None
    return False if hopeless else None
