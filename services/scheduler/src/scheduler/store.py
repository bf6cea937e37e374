"""The rows of schedules and fires as the clock reads and writes them, in the transaction that it opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from scheduler.decisions import MOST_ROWS, Decision, Outcome

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

Row = Mapping[str, Any]

#: `for update`: from here to the commit nobody pauses, edits or decides them. `skip locked`: whoever does that right
#: now makes no other schedule late. A row without a next fire time is new. One that was decided in the future was
#: decided by a clock that has been put back since. A leader that is no longer the newest finds nothing.
_DUE = f"""
select s.*, case when s.paused_at is null then 0 else (
    select count(*) from (
        select from carillon.fires f
        where f.schedule = s.name and f.fire_at >= s.paused_at and f.outcome = '{Outcome.PAUSED}'
        limit {MOST_ROWS + 1}
    ) as entered
) end as paused_fires
from carillon.schedules s
where (s.next_fire_at <= $1 or s.next_fire_at is null or s.last_fire_at > $1 + interval '1 minute')
  and s.name || '@' || s.revision <> all($2::text[])
  and (select max(epoch) from scheduler.leaders) = $3
order by s.next_fire_at nulls first
limit $4
for update of s skip locked
"""

_NEXT = "select min(next_fire_at) from carillon.schedules where next_fire_at > $1"

_ENTER = """
insert into carillon.fires (schedule, fire_at, outcome, detail, event_id)
select * from unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[])
on conflict do nothing
returning schedule, fire_at
"""

_ADVANCE = """
update carillon.schedules s set last_fire_at = d.last_fire_at, next_fire_at = d.next_fire_at
from unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) as d(name, last_fire_at, next_fire_at)
where s.name = d.name
"""


_FORGET = (
    f"delete from carillon.fires where schedule = any($1::text[]) and fire_at > $2 and outcome <> '{Outcome.FIRED}'"
)


class Fire(NamedTuple):
    """A decision about one schedule; `event_id` is the ledger's id of the event that it says, if it says one."""

    schedule: str
    decision: Decision
    event_id: UUID | None


class Advance(NamedTuple):
    """Up to where a schedule is decided, and when it is due next."""

    schedule: str
    last_fire_at: datetime | None
    next_fire_at: datetime


async def guard(connection: Connection, seconds: int) -> None:
    """Let the server end this transaction when it hears nothing from us for so long, so that its rows are free."""
    await connection.execute(f"set local idle_in_transaction_session_timeout = '{int(seconds)}s'")


async def due(connection: Connection, now: datetime, epoch: int, broken: Sequence[str], most: int) -> Sequence[Row]:
    """Up to `most` schedules that need a decision now, locked; not those `broken`, named `schedule@revision`."""
    return [dict(row) for row in await connection.fetch(_DUE, now, list(broken), epoch, most)]


async def enter(connection: Connection, fires: Sequence[Fire]) -> set[tuple[str, datetime]]:
    """Enter decisions; returns the schedule and fire time of those that nobody had decided before."""
    rows = await connection.fetch(
        _ENTER,
        [fire.schedule for fire in fires],
        [fire.decision.fire_at for fire in fires],
        [fire.decision.outcome.value for fire in fires],
        [fire.decision.detail for fire in fires],
        [fire.event_id for fire in fires],
    )
    return {(row["schedule"], row["fire_at"]) for row in rows}


async def advance(connection: Connection, advances: Sequence[Advance]) -> None:
    """Write up to where schedules are decided."""
    await connection.execute(
        _ADVANCE,
        [advance.schedule for advance in advances],
        [advance.last_fire_at for advance in advances],
        [advance.next_fire_at for advance in advances],
    )


async def forget_ahead(connection: Connection, schedules: Sequence[str], now: datetime) -> None:
    """Forget what a clock that went ahead of `now` left out, so that it can still happen; not what it fired."""
    await connection.execute(_FORGET, list(schedules), now)


async def next_due(connection: Connection, now: datetime) -> datetime | None:
    """When the next schedule is due; None when there is none."""
    moment: datetime | None = await connection.fetchval(_NEXT, now)
    return moment
