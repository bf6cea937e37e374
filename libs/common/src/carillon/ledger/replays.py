"""Running again what failed: one run, or many of them at a rate, after one that goes ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from carillon import clock
from carillon.bounds import LONGEST
from carillon.errors import ReplayConflictError, RunStateError
from carillon.ids import new_id
from carillon.ledger.audit import Actor, record
from carillon.ledger.records import After, NewRun, Submitted, cause_of

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

LOCK = "select pg_advisory_xact_lock(hashtextextended('replay ' || $1::text, 0))"
ORIGINALS = """
select id, domain, task, state, args, labels, priority, event_id, cause, callback_url, replay_of
from carillon.runs where id = any($1::uuid[]) and ended_on < 'infinity'
"""
#: The run that a replay repeats in the end, as replays of replays do; it may be forgotten.
FIRST = """
with recursive line as (
    select $1::uuid as id, 1 as depth
    union all
    select r.replay_of, depth + 1 from line join carillon.runs r using (id)
    where r.replay_of is not null and depth < 1000
)
select id from line order by depth desc limit 1
"""
#: Of the replays of a run, and of those of these, the one that lives or completed: all of them do the same work. With
#: whether it has the arguments that are wanted now; null wants any.
EARLIER = """
with recursive made as (
    select id, state, args, created_at, 1 as depth from carillon.runs where replay_of = $1
    union all
    select r.id, r.state, r.args, r.created_at, depth + 1 from made m join carillon.runs r on r.replay_of = m.id
    where depth < 1000
)
select id, state, $2::text is null or args = $2::text::jsonb as is_same from made
where state not in ('failed', 'cancelled', 'partial') order by created_at desc limit 1
"""
#: Locked in order, so that of two who settle the same runs one waits for the other.
SETTLE = """
with failed as (
    select id from carillon.runs
    where id = any($1::uuid[]) and ended_on < 'infinity' and state = 'failed' and settled_at is null
    order by id for update
)
update carillon.runs r set settled_at = now() from failed f where r.id = f.id and r.ended_on < 'infinity' returning r.id
"""

#: Ended like this, a run may be run again.
REPLAYABLE = frozenset({"failed", "cancelled", "partial"})


#: A run as it was read.
Row = Mapping[str, Any]


class Pace(NamedTuple):
    """How the runs of a group start: so many each second, once the one that went ahead has completed."""

    #: A run that was made before; None when nobody goes ahead.
    canary: UUID | None
    per_second: float
    #: How many of the group were made in earlier calls.
    earlier: int = 0

    def of(self, number: int) -> tuple[After | None, datetime | None]:
        """What the run of this number (1 is the first) waits for, and not before when it starts."""
        delay = timedelta(seconds=(self.earlier + number) / self.per_second)
        if self.canary is None:
            return None, clock.now() + delay
        return After(runs=[self.canary], delay=min(delay, LONGEST)), None


def checked(run: UUID, original: Row | None) -> Row:
    """The run that is to be repeated; raises `RunStateError` when it cannot be."""
    if original is None or original["state"] not in REPLAYABLE:
        state = "has not ended, or nobody knows it" if original is None else f"ended {original['state']}"
        message = f"the run {run} {state}; only what failed, was cancelled or is partial can be run again"
        raise RunStateError(message)
    return original


def answer(replay: UUID, state: str, *, is_same: bool) -> Submitted:
    """What an earlier replay is to a new wish for one; raises `ReplayConflictError` where it has other arguments."""
    if not is_same:
        raise ReplayConflictError(replay, state)
    return Submitted(replay, created=False)


def repetition(original: Row, actor: Actor, args: Mapping[str, Any] | None) -> NewRun:
    """The run that repeats this one."""
    return NewRun(
        # No derived id: it would be remembered when the replay is deleted, and the next one could not be made.
        id=new_id(),
        domain=original["domain"],
        task=original["task"],
        args=orjson.dumps(original["args"] if args is None else args).decode(),
        labels=original["labels"],
        priority=original["priority"],
        event_id=original["event_id"],
        cause=cause_of(original["cause"]),
        callback_url=original["callback_url"],
        replay_of=original["id"],
        actor=actor.name,
    )


class Replays:
    """Repeats runs; what it makes says of which run it is a repetition."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def replay(
        self, run: UUID, actor: Actor, reason: str | None = None, *, args: Mapping[str, Any] | None = None
    ) -> Submitted:
        """Run a failed, cancelled or partial run again, perhaps with other arguments, as a run of its own.

        Asking twice makes one: while a replay lives, or when it completed, it is the answer, whatever its arguments
        where none are named; so is one of the run that this one repeats, or of its other replays. Raises
        `ReplayConflictError` where others are named than it has, and `RunStateError` for a run that cannot be repeated;
        whoever calls has checked `args` against the schema, as `carillon.operator` does.
        """
        async with self._ledger.transaction() as connection:
            original = await self._original(connection, run)
            submitted = await self._submit(connection, original, actor, args)
            if submitted.created:
                entry = actor.did("run.replayed", str(run), reason, as_run=str(submitted.id), edited=args is not None)
                await record(connection, entry)
        return submitted

    async def repeat(self, connection: Connection, original: Row, actor: Actor) -> Submitted:
        """Run an ended run again, whatever became of it, in a transaction of the caller's, which also records it."""
        return await self._submit(connection, original, actor, None)

    async def _original(self, connection: Connection, run: UUID) -> Row:
        original = await connection.fetchrow(ORIGINALS, [run])
        return checked(run, None if original is None else dict(original))

    async def replay_all(
        self, connection: Connection, runs: Sequence[UUID], actor: Actor, pace: Pace | None = None
    ) -> list[Submitted]:
        """Run several again, in a transaction of the caller's, which also records it; what cannot be is left out."""
        originals = {row["id"]: dict(row) for row in await connection.fetch(ORIGINALS, list(runs))}
        found = [originals[run] for run in runs if run in originals and originals[run]["state"] in REPLAYABLE]
        submitted = []
        for number, original in enumerate(found, start=1):
            after, run_at = (None, None) if pace is None else pace.of(number)
            submitted.append(await self._submit(connection, original, actor, None, after, run_at))
        return submitted

    async def _submit(
        self,
        connection: Connection,
        original: Row,
        actor: Actor,
        args: Mapping[str, Any] | None,
        after: After | None = None,
        run_at: datetime | None = None,
    ) -> Submitted:
        first = original["id"]
        if original["replay_of"] is not None:
            first = await connection.fetchval(FIRST, original["replay_of"])
        await connection.execute(LOCK, str(first))
        wanted = None if args is None else orjson.dumps(args).decode()
        earlier = await connection.fetchrow(EARLIER, first, wanted)
        if earlier is not None:
            return answer(earlier["id"], earlier["state"], is_same=earlier["is_same"])
        run = replace(repetition(original, actor, args), after=after, run_at=run_at)
        return await self._ledger.conditions.accept(run, connection)

    async def settle(self, runs: Sequence[UUID], actor: Actor, reason: str | None = None) -> int:
        """Say of failed runs that nothing more has to be done about them; returns of how many that was news."""
        async with self._ledger.transaction() as connection:
            settled = await connection.fetch(SETTLE, list(runs))
            if len(settled) == 1:
                await record(connection, actor.did("run.settled", str(settled[0]["id"]), reason))
            elif settled:
                ids = [str(row["id"]) for row in settled]
                await record(connection, actor.did("runs.settled", f"{len(ids)} runs", reason, runs=ids))
        return len(settled)
