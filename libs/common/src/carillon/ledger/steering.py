"""Steering by people: cancelling runs, pausing and resuming a run, a task or a domain's queue.

Each call is one transaction together with its entry in the audit trail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple
from uuid import UUID

from carillon.errors import InvalidArgumentsError
from carillon.ledger.audit import Actor, record
from carillon.ledger.cancelling import TELL_GATE, Cancelled, cancel_all, cancellation
from carillon.ledger.followups import resolve
from carillon.ledger.statements.rows import wake

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger

#: Which of the runs that a worker executes somebody wants cancelled.
WANTED = """
select id, cancel->>'message' as reason from carillon.runs_live
where id = any($1::uuid[]) and state = 'running' and cancel is not null
"""

PAUSE = f"""
update carillon.runs_live set state = 'paused', dispatched_at = null
where id = $1 and state in ('pending', 'queued', 'retrying') returning id, {TELL_GATE}
"""
#: It gave its slot away, and has to be let in again. What its condition had let go before does not meet it again.
RESUME = f"""
with freed as (
    update carillon.runs_live set run_at = greatest(run_at, now()), gated = gate is not null,
        state = case when after is not null and not after ? 'met' then 'pending'
            when told < wake_at and cancel is null then 'pending'
            when attempt > 1 then 'retrying' else 'queued' end
    where id = $1 and state = 'paused' returning id, domain, run_at, dispatched_at, gated
), woken as ({wake("freed")})
select id from freed cross join (select count(*) from woken) as w
"""
STATE = "select state from carillon.runs where id = $1"

KNOWN = "select exists(select from carillon.tasks where domain = $1 or name = $1)"
HOLD = "insert into carillon.holds (name, actor, reason) values ($1, $2, $3) on conflict do nothing returning name"
RELEASE = "delete from carillon.holds where name = $1 returning name"
#: What was delivered while nothing might start waits in the ledger again. What somebody else writes at this moment is
#: not waited for, which could end in a deadlock; the sweeper sends it again.
LET_GO = """
with waiting as (
    select id from carillon.runs_live
    where domain = split_part($1, '.', 1) and (domain = $1 or task = $1) and priority between 0 and 3
      and state in ('queued', 'retrying') and dispatched_at is not null
    for update skip locked
), freed as (
    update carillon.runs_live r set dispatched_at = null from waiting w where r.id = w.id
)
select pg_notify('carillon_runs', split_part($1, '.', 1) || door) from unnest(array['', ' gate']) as d(door)
"""
HOLDS = "select name, actor, reason, since from carillon.holds order by name"


class Hold(NamedTuple):
    """A domain or task of which nothing starts."""

    name: str
    actor: str
    reason: str | None
    since: object


class Steered(NamedTuple):
    """What pausing or resuming did."""

    #: False where it was like this before.
    changed: bool
    #: Of a run, its state afterwards; None of a domain or task, and of a run that nobody knows.
    state: str | None = None


class Steering:
    """What people do to runs and queues."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def cancel(self, run: UUID, actor: Actor, reason: str | None = None) -> Cancelled:
        """Cancel a run and whatever it submitted.

        What waits ends at once. What executes is asked to, and ends when its code has stopped: at the latest with the
        grace that its task grants; what it submits until then is cancelled when it has ended. Cancelling what has ended
        changes nothing, and is not recorded.
        """
        async with self._ledger.transaction() as connection:
            cancelled, awaited, _ = await cancel_all(connection, [run], cancellation(actor, reason))
            if any(cancelled):
                await record(connection, actor.did("run.cancelled", str(run), reason, **cancelled._asdict()))
        await self._ledger.followups.follow(awaited)
        return cancelled

    async def wanted(self, running: Sequence[UUID]) -> list[tuple[UUID, str]]:
        """Which of these executing runs somebody wants cancelled, and why."""
        rows = await self._ledger.pool.fetch(WANTED, list(running))
        return [(row["id"], row["reason"]) for row in rows]

    async def pause_run(self, run: UUID, actor: Actor, reason: str | None = None) -> Steered:
        """Let a run that waits not start until it is resumed.

        A run that executes, or has ended, stays as it is.
        """
        async with self._ledger.transaction() as connection:
            paused = await connection.fetchval(PAUSE, run) is not None
            if paused:
                await record(connection, actor.did("run.paused", str(run), reason))
            state: str | None = await connection.fetchval(STATE, run)
        return Steered(paused, state)

    async def resume_run(self, run: UUID, actor: Actor, reason: str | None = None) -> Steered:
        """Let a paused run go on."""
        async with self._ledger.transaction() as connection:
            awaited: Sequence[UUID] = ()
            resumed = await connection.fetchval(RESUME, run) is not None
            if resumed:
                awaited = await resolve(connection, [run])
                await record(connection, actor.did("run.resumed", str(run), reason))
            state: str | None = await connection.fetchval(STATE, run)
        await self._ledger.followups.follow(awaited)
        return Steered(resumed, state)

    async def pause(self, name: str, actor: Actor, reason: str | None = None) -> bool:
        """Let nothing of a domain, or of one task, start: nothing does that no worker was starting when this returned.

        What executes goes on. Returns False when it was paused before. Raises `InvalidArgumentsError` for a name that
        no domain and no task has.
        """
        async with self._ledger.transaction() as connection:
            if not await connection.fetchval(KNOWN, name):
                raise InvalidArgumentsError(unknown_name(name))
            paused = await connection.fetchval(HOLD, name, actor.name, reason) is not None
            if paused:
                await record(connection, actor.did(word(name, "paused"), name, reason))
        return paused

    async def resume(self, name: str, actor: Actor, reason: str | None = None) -> bool:
        """Let a paused domain or task start its runs again; False when it was not paused.

        Raises `InvalidArgumentsError` for a name that no domain and no task has, and that was not paused.
        """
        async with self._ledger.transaction() as connection:
            resumed = await connection.fetchval(RELEASE, name) is not None
            if resumed:
                await connection.execute(LET_GO, name)
                await record(connection, actor.did(word(name, "resumed"), name, reason))
            elif not await connection.fetchval(KNOWN, name):
                raise InvalidArgumentsError(unknown_name(name))
        return resumed

    async def holds(self) -> list[Hold]:
        """What is paused, by name."""
        return [Hold(*row) for row in await self._ledger.pool.fetch(HOLDS)]


def unknown_name(name: str) -> str:
    """The sentence about a name that no domain and no task has."""
    return f"no domain and no task is called {name!r}; `carillon doctor` lists the services there are"


def word(
    name: str, done: Literal["paused", "resumed"]
) -> Literal["queue.paused", "queue.resumed", "task.paused", "task.resumed"]:
    """The action of the audit trail."""
    if "." in name:
        return "task.paused" if done == "paused" else "task.resumed"
    return "queue.paused" if done == "paused" else "queue.resumed"
