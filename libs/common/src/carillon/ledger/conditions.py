"""Submits under a condition: one run for a key, or after other runs. Those of one call are one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from carillon.errors import IdempotencyConflictError, UniqueConflictError, UnknownNeedError
from carillon.ledger.followups import resolve
from carillon.ledger.records import NewRun, Submitted
from carillon.ledger.statements.rows import bury, taken_out

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

#: Who looks whether a key is free, looks after the one before has committed: the lock is taken in a statement of its
#: own, because one statement sees the table as it was when it began to wait. In order, so that no two calls wait for
#: each other.
LOCK_KEYS = """
select pg_advisory_xact_lock(of_key)
from (
    select distinct hashtextextended(n.task || E'\\n' || n.key, 0) as of_key
    from unnest($1::text[], $2::text[]) as n(task, key) order by of_key
) as sorted
"""

#: By place, the run that keeps others with its key out, newest first. One whose place was taken keeps nobody out,
#: whatever its age: of one transaction all are as old.
KEEPERS = """
select n.at, k.id, k.state
from unnest($1::int[], $2::text[], $3::text[], $4::boolean[], $5::interval[]) as n(at, task, key, until_ended, span)
cross join lateral (
    select id, state from carillon.runs r
    where r.unique_key = n.key and r.task = n.task
      and (r.state in ('pending', 'queued', 'retrying', 'paused') or r.state = 'running' and n.until_ended
           or r.created_at > now() - n.span and r.error->>'type' is distinct from 'Replaced')
    order by r.created_at desc, r.id desc limit 1
) k
"""

ACCEPTED = "select id from carillon.causes where id = any($1::uuid[])"

REPLACE = f"""
with held as (
    select id from carillon.runs_live
    where id = any($1::uuid[]) and state in ('pending', 'queued', 'retrying', 'paused') order by id for update
), gone as (
    delete from carillon.runs_live r using unnest($1::uuid[], $2::uuid[]) as n(old, new)
    where r.id = n.old and r.id in (select id from held)
    returning {taken_out()}, n.new as successor
), kept as ({
    bury(
        "gone",
        state="'cancelled'",
        error="jsonb_build_object('type', 'Replaced', 'message', 'the run ' || g.successor || ' took its place')",
    )
})
select id, awaited from gone
"""

#: Runs that live and are needed: nobody ends one of them before the need is written.
AWAIT = """
update carillon.runs_live set awaited = true
where id in (select id from carillon.runs_live where id = any($1::uuid[]) order by id for update) returning id
"""
ENDED = "select id, state from carillon.runs where id = any($1::uuid[]) and ended_on < 'infinity'"
NEED = """
insert into carillon.needs (run_id, on_id, outcome) select * from unnest($1::uuid[], $2::uuid[], $3::text[])
"""


class Conditions:
    """Accepts what may not be accepted by itself."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def submit(self, batch: Sequence[tuple[NewRun, bool]]) -> list[Submitted]:
        """Accept runs in order, all or none; each comes with whether it is given to the transport right after.

        A run may come after others of the batch that stand before it. Raises with the positions of those that do not
        fit: `IdempotencyConflictError`; `UniqueConflictError`, where a run is there that keeps one out whose
        `on_conflict` is `reject`; and `UnknownNeedError`, where `after` names a run that nobody knows.
        """
        runs = [run for run, _ in batch]
        replaced: list[UUID] = []
        outcomes: dict[int, Submitted] = {}
        async with self._ledger.transaction() as connection:
            await self._lock_keys(connection, runs)
            for turn in turns(runs):
                outcomes |= await self._make_room(connection, {at: runs[at] for at in turn}, replaced)
                outcomes |= await self._accept(connection, {at: batch[at] for at in turn if at not in outcomes})
            await self._need(connection, runs, outcomes)
        await self._ledger.followups.follow(replaced)
        return [outcomes[at] for at in range(len(runs))]

    async def accept(self, run: NewRun, connection: Connection) -> Submitted:
        """Accept a run that may have to wait for others, in a transaction of the caller's."""
        outcomes = await self._accept(connection, {0: (run, False)})
        await self._need(connection, [run], outcomes)
        return outcomes[0]

    async def _lock_keys(self, connection: Connection, runs: Iterable[NewRun]) -> None:
        keyed = [(run.task, run.unique.key_for(run.args)) for run in runs if run.unique is not None]
        if keyed:
            await connection.execute(LOCK_KEYS, [task for task, _ in keyed], [key for _, key in keyed])

    async def _make_room(
        self, connection: Connection, runs: Mapping[int, NewRun], replaced: list[UUID]
    ) -> dict[int, Submitted]:
        """By place, the run that stands for one that is kept out; those that had to go and are awaited are added."""
        keepers = await self._keepers(connection, runs)
        refuse_kept_out(runs, keepers)
        leaving = {keeper["id"]: runs[at].id for at, keeper in keepers.items() if conflict_of(runs[at]) == "replace"}
        gone: dict[UUID, bool] = {}
        if leaving:
            rows = await connection.fetch(REPLACE, list(leaving), list(leaving.values()))
            gone = {row["id"]: row["awaited"] for row in rows}
        replaced += [run for run, awaited in gone.items() if awaited]
        stays = {at: keeper["id"] for at, keeper in keepers.items() if keeper["id"] not in gone}
        return {at: Submitted(keeper, created=False) for at, keeper in stays.items()}

    async def _keepers(self, connection: Connection, runs: Mapping[int, NewRun]) -> dict[int, Mapping[str, Any]]:
        """By place, the runs that keep others out; a submit that is sent again is not kept out."""
        looked = [
            (at, run.task, run.unique.key_for(run.args), run.unique.until == "ended", run.unique.window)
            for at, run in runs.items()
            if run.unique is not None
        ]
        if not looked:
            return {}
        rows = await connection.fetch(KEEPERS, *map(list, zip(*looked, strict=True)))
        found = {row["at"]: row for row in rows if row["id"] != runs[row["at"]].id}
        keyed = [runs[at].id for at in found if runs[at].idempotency_key is not None]
        again = {row["id"] for row in await connection.fetch(ACCEPTED, keyed)} if keyed else set()
        return {at: dict(row) for at, row in found.items() if runs[at].id not in again}

    async def _accept(self, connection: Connection, batch: Mapping[int, tuple[NewRun, bool]]) -> dict[int, Submitted]:
        return all_accepted(batch, await self._ledger.accept(list(batch.values()), connection)) if batch else {}

    async def _need(self, connection: Connection, runs: Sequence[NewRun], outcomes: Mapping[int, Submitted]) -> None:
        """Write what the new runs wait for, and let those go that need not wait."""
        needed = needs_of(runs, outcomes)
        if not needed:
            return
        wanted = sorted({one for of_one in needed.values() for one in of_one})
        known: dict[UUID, str | None] = {row["id"]: None for row in await connection.fetch(AWAIT, wanted)}
        known |= {row["id"]: row["state"] for row in await connection.fetch(ENDED, wanted)}
        refuse_unknown_needs(runs, needed, known)
        pairs = [(runs[at].id, one, known[one]) for at, of_one in needed.items() for one in of_one]
        await connection.execute(NEED, *map(list, zip(*pairs, strict=True)))
        await resolve(connection, [runs[at].id for at in needed])


def turns(runs: Sequence[NewRun]) -> list[list[int]]:
    """The places of a batch, in turns: of the runs with one unique key there is one in each, the first in the first."""
    seen: Counter[tuple[str, str]] = Counter()
    found: list[list[int]] = []
    for at, run in enumerate(runs):
        turn = 0
        if run.unique is not None:
            key = (run.task, run.unique.key_for(run.args))
            turn = seen[key]
            seen[key] += 1
        if turn == len(found):
            found.append([])
        found[turn].append(at)
    return found


def conflict_of(run: NewRun) -> str:
    """What is to happen when another run keeps this one out."""
    return "keep" if run.unique is None else run.unique.on_conflict


def refuse_kept_out(runs: Mapping[int, NewRun], keepers: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise `UniqueConflictError` for runs that are to be refused when others, by their ids and states, are there."""
    refused = sorted(at for at in keepers if conflict_of(runs[at]) == "reject")
    if not refused:
        return
    keeper = keepers[refused[0]]
    message = f"the run {keeper['id']} of {runs[refused[0]].task}, which is {keeper['state']}, has the same unique key"
    raise UniqueConflictError(message, run=keeper["id"], positions=refused)


def all_accepted(places: Iterable[int], outcomes: Iterable[Submitted | Exception]) -> dict[int, Submitted]:
    """The outcomes by place; raises `IdempotencyConflictError` where there is one that is an error."""
    found = dict(zip(places, outcomes, strict=True))
    if refused := {at: outcome for at, outcome in found.items() if isinstance(outcome, Exception)}:
        raise IdempotencyConflictError(str(next(iter(refused.values()))), positions=sorted(refused))
    return {at: outcome for at, outcome in found.items() if isinstance(outcome, Submitted)}


def needs_of(runs: Sequence[NewRun], outcomes: Mapping[int, Submitted]) -> dict[int, list[UUID]]:
    """By place, what the runs wait for that were made: for a run of the batch, whichever stands for it."""
    standing = {run.id: outcomes[at].id for at, run in enumerate(runs)}
    return {
        at: sorted({standing.get(one, one) for one in run.after.runs})
        for at, run in enumerate(runs)
        if run.after is not None and outcomes[at].created
    }


def refuse_unknown_needs(
    runs: Sequence[NewRun], needed: Mapping[int, Sequence[UUID]], known: Mapping[UUID, object]
) -> None:
    """Raise `UnknownNeedError` where a run waits for others that nobody knows, or that do not stand before it."""
    places = {run.id: at for at, run in enumerate(runs)}
    refused = {
        at: unknown
        for at, of_one in needed.items()
        if (unknown := [str(one) for one in of_one if one not in known or places.get(one, -1) >= at])
    }
    if not refused:
        return
    unknown = next(iter(refused.values()))
    message = f"a run can wait for runs that were accepted before it; nobody knows {', '.join(unknown[:5])}"
    raise UnknownNeedError(message, positions=sorted(refused))
