"""Acting on many runs: first the set is chosen and shown, then exactly this set is acted upon.

A selection keeps the ids of its runs, so that what arrives after the preview is not touched, however well it would fit.
The act goes on where it stopped: it may be called again until nothing remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from carillon.errors import InvalidArgumentsError, NotFoundError
from carillon.ids import new_id
from carillon.ledger.audit import Action, Actor, record
from carillon.ledger.cancelling import cancel_all, cancellation
from carillon.ledger.replays import SETTLE, Pace
from carillon.stored_results import MARK, Stored, stored_in

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

Act = Literal["cancel", "replay", "settle", "delete"]

#: No selection is larger, and none is valid for longer.
MOST_RUNS = 1_000_000
VALID = timedelta(minutes=15)
#: Runs acted upon in one transaction, which has to be over before whoever waits for it gives up. A replay is a submit
#: for each run; the rest is a statement for all of them.
CHUNK = 500
REPLAY_CHUNK = 100
SAMPLE = 10
#: So many runs of a replay start each second: at least, unless somebody says otherwise, and at most.
LEAST_RATE, RATE, MOST_RATE = 0.01, 50.0, 10_000.0
#: Longer filters are not repeated in the audit trail.
MOST_TOLD_BYTES = 4_000
NO_SELECTION = "no such selection, or it was made more than 15 minutes ago; make the preview again"

#: What an act can do something to; the rest of what was asked for is not selected.
FITTING: Mapping[Act, str] = {
    "cancel": "r.finished_at is null",
    # A replay stands for what it repeats, unless it was cancelled: both together would do the same work twice.
    "replay": """r.state in ('failed', 'cancelled', 'partial') and not exists (
        select from carillon.runs p where p.replay_of = r.id and p.state <> 'cancelled'
    )""",
    "settle": "r.state = 'failed' and r.settled_at is null",
    "delete": "r.finished_at is not null",
}
_DONE: Mapping[Act, Action] = {
    "cancel": "runs.cancelled",
    "replay": "runs.replayed",
    "settle": "runs.settled",
    "delete": "runs.deleted",
}

MAKE = "insert into carillon.selections (id, action, actor, filters, count) values ($1, $2, $3, $4::text::jsonb, 0)"
COUNT = """
update carillon.selections set count = (select count(*) from carillon.selected where selection_id = $1) where id = $1
returning count
"""
SHOW = """
select r.id, r.task, r.state, r.created_at, r.finished_at, r.error->>'message' as error
from carillon.selected s join carillon.runs r on r.id = s.run_id where s.selection_id = $1 limit $2
"""
TAKE = """
select id, action, actor, filters, count, skipped, begun_at, canary from carillon.selections
where id = $1 and (begun_at is not null or made_at > now() - $2::interval) for update
"""
NOTE = "update carillon.selections set begun_at = coalesce(begun_at, now()), skipped = $2 where id = $1"
NEXT = """
delete from carillon.selected where ctid = any(array(
    select ctid from carillon.selected where selection_id = $1 order by run_id limit $2
)) returning run_id
"""
SET_CANARY = "update carillon.selections set canary = $2 where id = $1"
REMAINING = "select count(*) from carillon.selected where selection_id = $1"
#: Their causes stay, as those of runs that are forgotten do: what was done once is not done again because a client or a
#: broker repeats itself.
DELETE = f"""
with ended as (
    select id from carillon.runs where id = any($1::uuid[]) and ended_on < 'infinity' order by id for update
), gone as (
    delete from carillon.runs r using ended e where r.id = e.id and r.ended_on < 'infinity'
    returning r.id, case when r.result ? '{MARK}' then r.result end as result
), tries as (delete from carillon.attempts using gone where run_id = gone.id
), needs as (delete from carillon.needs using gone where run_id = gone.id)
, steps as (delete from carillon.steps using gone where workflow_id = gone.id)
select id, result from gone
"""
FORGET = """
with old as (delete from carillon.selections where made_at < now() - interval '1 day' returning id)
delete from carillon.selected using old where selection_id = old.id
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of runs that was chosen: its id is the token for acting upon it."""

    id: UUID
    action: Act
    count: int
    #: Some of its runs: id, task, state, created_at, finished_at, error.
    sample: Sequence[Mapping[str, Any]]


class Progress(NamedTuple):
    """How far an act is."""

    #: What is acted upon: the token of the selection.
    selection: UUID
    #: How many were looked at, and of how many of these nothing had to be done any more: they had changed since.
    done: int
    skipped: int
    remaining: int
    #: What is done, and of how many runs in all.
    action: Act
    selected: int
    #: Of a replay: the run that goes ahead of the others.
    canary: UUID | None = None
    #: The results of deleted runs that lie in storage: whoever acts deletes those.
    stored: Sequence[Stored] = ()


class _Chunk(NamedTuple):
    """What a call did: how many runs it changed, and what is left to others."""

    changed: int
    awaited: Sequence[UUID] = ()
    stored: Sequence[Stored] = ()
    canary: UUID | None = None


class _Rate(NamedTuple):
    """How a replay of many starts: so many each second, after how many that an earlier call made."""

    per_second: float
    earlier: int
    #: Whether one goes ahead of the others.
    ahead: bool


class Selections:
    """Chooses runs, and acts upon what was chosen."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def make(
        self, action: Act, where: str, values: Sequence[object], filters: Mapping[str, Any], actor: Actor
    ) -> Selection:
        """Choose the runs that fit `where`, a condition on `carillon.runs r` with the parameters `$1` and on.

        `filters` says the same for people. Raises `InvalidArgumentsError` where they are more than 1,000,000.
        """
        selection = new_id()
        choose = (
            f"insert into carillon.selected select ${len(values) + 1}, r.id from carillon.runs r "
            f"where ({where}) and {FITTING[action]} limit {MOST_RUNS + 1}"
        )
        async with self._ledger.transaction() as connection:
            await connection.execute(MAKE, selection, action, actor.name, orjson.dumps(filters, default=str).decode())
            await connection.execute(choose, *values, selection, timeout=60)
            count = await connection.fetchval(COUNT, selection)
            if count > MOST_RUNS:
                message = f"more than {MOST_RUNS:,} runs fit; narrow the search, for example with since and until"
                raise InvalidArgumentsError(message)
            sample = [dict(row) for row in await connection.fetch(SHOW, selection, SAMPLE)]
        return Selection(selection, action, count, sample)

    async def act(
        self,
        selection: UUID,
        actor: Actor,
        reason: str | None = None,
        *,
        per_second: float = RATE,
        canary: bool = True,
    ) -> Progress:
        """Act upon the next 500 runs of a selection, of a replay the next 100. Call again until nothing remains.

        A replay lets one run go ahead; the others wait for it to complete, and then start at `per_second`. Without
        `canary` they start at that rate from now on. Raises `NotFoundError` for a selection that is unknown, was made
        for somebody else, or is 15 minutes old, and `InvalidArgumentsError` for a rate that is not from 0.01 to 10,000.
        """
        if not LEAST_RATE <= per_second <= MOST_RATE:
            message = (
                f"rate is {per_second!r}; it is how many runs start each second, from {LEAST_RATE} to {MOST_RATE:,.0f}"
            )
            raise InvalidArgumentsError(message)
        async with self._ledger.transaction() as connection:
            found = await connection.fetchrow(TAKE, selection, VALID)
            if found is None or found["actor"] != actor.name:
                raise NotFoundError(NO_SELECTION)
            before = await connection.fetchval(REMAINING, selection)
            most = REPLAY_CHUNK if found["action"] == "replay" else CHUNK
            # The oldest first: an id has the moment of its submit.
            chosen = sorted(row["run_id"] for row in await connection.fetch(NEXT, selection, most))
            rate = _Rate(per_second, found["count"] - before, canary)
            chunk = await self._act(connection, found, chosen, actor, reason, rate)
            skipped, left = found["skipped"] + len(chosen) - chunk.changed, before - len(chosen)
            await connection.execute(NOTE, selection, skipped)
            if chosen:
                details = {"runs": chunk.changed, "selected": found["count"], "remaining": left}
                told = {} if found["begun_at"] else {"filters": _told(found["filters"])}
                entry = actor.did(_DONE[found["action"]], str(selection), reason, **details, **told)
                await record(connection, entry)
        await self._ledger.followups.follow(chunk.awaited)
        done, count = found["count"] - left, found["count"]
        return Progress(selection, done, skipped, left, found["action"], count, chunk.canary, chunk.stored)

    async def _act(
        self,
        connection: Connection,
        selection: asyncpg.Record,
        runs: Sequence[UUID],
        actor: Actor,
        reason: str | None,
        rate: _Rate,
    ) -> _Chunk:
        """Act upon the next of a selection."""
        action: Act = selection["action"]
        if action == "replay":
            return await self._replay(connection, selection, runs, actor, rate)
        if action == "cancel":
            family = await cancel_all(connection, runs, cancellation(actor, reason))
            return _Chunk(len(family.lived.intersection(runs)), family.awaited)
        if action == "settle":
            return _Chunk(len(await connection.fetch(SETTLE, runs)))
        gone = await connection.fetch(DELETE, runs)
        stored = [kept for row in gone if (kept := stored_in(row["id"], row["result"])) is not None]
        return _Chunk(len(gone), stored=stored)

    async def _replay(
        self, connection: Connection, selection: asyncpg.Record, runs: Sequence[UUID], actor: Actor, rate: _Rate
    ) -> _Chunk:
        """Run the next of a selection again, one of them ahead of the others where that is wished and none is yet."""
        canary: UUID | None = selection["canary"]
        left, made = list(runs), 0
        while rate.ahead and canary is None and left:
            ahead = await self._ledger.replays.replay_all(connection, [left.pop(0)], actor)
            # A replay that was there already shows nothing about what is mended now.
            if ahead and ahead[0].created:
                canary, made = ahead[0].id, 1
                await connection.execute(SET_CANARY, selection["id"], canary)
        pace = Pace(canary, rate.per_second, rate.earlier)
        made += sum(one.created for one in await self._ledger.replays.replay_all(connection, left, actor, pace))
        return _Chunk(made, canary=canary)


def _told(filters: Mapping[str, Any]) -> object:
    """The filters as the audit trail keeps them, which has a bound."""
    return filters if len(orjson.dumps(filters)) <= MOST_TOLD_BYTES else "too long to be kept"
