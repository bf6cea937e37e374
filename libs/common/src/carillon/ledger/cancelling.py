"""Cancelling runs, and all that they submitted: what waits ends at once, what executes is asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from carillon.ledger.audit import Actor
from carillon.ledger.statements.rows import bury, taken_out, wake

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection

#: What may be cancelled or paused by itself, because nobody executes it.
WAITING = "state in ('pending', 'queued', 'retrying', 'paused')"
#: Of a run that had a slot somebody else may have it.
TELL_GATE = "case when gate is not null and not gated then pg_notify('carillon_runs', domain || ' gate') end"

#: How long a statement about all that a run submitted may take: 100,000 runs need four.
FAMILY_SECONDS = 60.0

#: Runs, and all that they submitted, that live; locked in order, so that none begins or ends meanwhile. What takes back
#: a step of a saga is not among them: it has to be done, also when the saga is cancelled amid that.
FAMILY = """
with recursive family as (
    select unnest($1::uuid[]) as id
    union
    select r.id from carillon.runs r join family f on r.parent_id = f.id
    where r.step is null or not exists (
        select from carillon.steps s where s.workflow_id = r.parent_id and s.seq = r.step and s.undoes is not null
    )
)
select r.id, r.state, r.wake_at is not null as parks
from carillon.runs_live r join family f on f.id = r.id order by r.id for update of r
"""
CANCEL_WAITING = f"""
with gone as (
    delete from carillon.runs_live r where r.id = any($1::uuid[]) and {WAITING} returning {taken_out()}
), kept as ({bury("gone", state="'cancelled'", error="$2::text::jsonb")})
select id, awaited, {TELL_GATE} from gone
"""
#: The payload of the notification is a worker's id: each hears only what is for it. Its end is awaited: what it submits
#: before it has ended is cancelled then.
ASK_RUNNING = """
with asked as (
    update carillon.runs_live set cancel = $2::text::jsonb, awaited = true
    where id = any($1::uuid[]) and state = 'running' and cancel is null returning worker_id
)
select pg_notify('carillon_runs', worker_id::text) from asked group by worker_id
"""
#: A workflow that is under way is told, and cleans up: what it did may have to be undone.
TELL_WORKFLOWS = f"""
with asked as (
    update carillon.runs_live set cancel = $2::text::jsonb, awaited = true, run_at = now(),
        state = case when state in ('pending', 'paused') then 'queued' else state end
    where id = any($1::uuid[]) and {WAITING} and cancel is null
    returning id, domain, run_at, dispatched_at, gated
)
{wake("asked")}
"""


class Cancelled(NamedTuple):
    """How many runs ended at once, and how many execute, or are workflows under way, and were asked to end."""

    ended: int
    asked: int


class Family(NamedTuple):
    """What a cancellation did to runs and all that they submitted."""

    cancelled: Cancelled
    #: Those that ended at once and whose end is awaited.
    awaited: list[UUID]
    #: Those that lived, and ended or were asked to.
    lived: frozenset[UUID]


async def cancel_all(connection: Connection, runs: Sequence[UUID], told: Mapping[str, Any]) -> Family:
    """Cancel runs with all that they submitted, for what is `told`."""
    family = await connection.fetch(FAMILY, list(runs), timeout=FAMILY_SECONDS)
    encoded = orjson.dumps(told).decode()
    running = [row["id"] for row in family if row["state"] == "running"]
    workflows = [row["id"] for row in family if row["state"] != "running" and row["parks"]]
    waiting = [row["id"] for row in family if row["state"] != "running" and not row["parks"]]
    gone = await connection.fetch(CANCEL_WAITING, waiting, encoded, timeout=FAMILY_SECONDS) if waiting else []
    if running:
        await connection.execute(ASK_RUNNING, running, encoded)
    if workflows:
        await connection.execute(TELL_WORKFLOWS, workflows, encoded)
    lived = frozenset(row["id"] for row in family)
    asked = len(running) + len(workflows)
    return Family(Cancelled(len(gone), asked), [row["id"] for row in gone if row["awaited"]], lived)


def cancellation(actor: Actor, reason: str | None) -> dict[str, str]:
    """The error of a run that somebody cancelled."""
    message = f"cancelled by {actor.name}{f': {reason}' if reason else ''}"
    return {"type": "Cancelled", "message": message, "by": actor.name}
