"""What needs a person: failed runs and unreadable messages, grouped by what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import asyncpg

from carillon.errors import RunStateError
from carillon.ledger.audit import Actor, record
from carillon.ledger.search import Cursor

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger
    from carillon.transports.port import Transport

#: No list is longer.
MOST_ROWS = 500
#: Of a longer message only the beginning is kept.
MOST_KEPT_BYTES = 1 << 20
#: Messages redelivered in one transaction: their bodies are in memory together.
REDELIVERED = 20

#: Failed, not settled, and not run again: a replay that failed stands for its original, a cancelled one for nothing.
UNSETTLED = """
    r.state = 'failed' and r.settled_at is null and r.ended_on < 'infinity'
    and not exists (select 1 from carillon.runs p where p.replay_of = r.id and p.state <> 'cancelled')
"""
#: The group of those whose error has no fingerprint: their worker died, and nobody was there to describe it.
NONE = "none"
#: The condition for the failed runs of a group; None is any task.
OF_GROUP = f"""
    (r.error->>'fingerprint' = $1 or $1 = '{NONE}' and r.error->>'fingerprint' is null)
    and ($2::text is null or r.task = $2) and {UNSETTLED}
"""
#: Errors are long, so what is sorted has none: they are read of the newest of each group. That takes a third
#: of the time with 200,000 failed runs.
RUN_GROUPS = f"""
with failed as materialized (
    select r.id, r.domain, r.task, r.finished_at, coalesce(r.error->>'fingerprint', '{NONE}') as fingerprint
    from carillon.runs r where {UNSETTLED} and ($1::text is null or r.domain = $1)
), groups as (
    select fingerprint, domain, task, count(*) as count, min(finished_at) as first_at, max(finished_at) as last_at,
           (array_agg(id order by finished_at desc))[1:5] as sample
    from failed group by fingerprint, domain, task order by last_at desc limit $2
)
select g.*, r.error->>'type' as type, r.error->>'message' as message
from groups g join carillon.runs r on r.id = g.sample[1] and r.ended_on < 'infinity' order by g.last_at desc
"""
#: Arguments beyond 8 KB are left out of lists.
RUNS = f"""
select r.id, r.task, r.domain, r.state, r.attempt, r.labels, r.actor, r.created_at, r.started_at, r.finished_at,
       case when octet_length(r.args::text) <= 8192 then r.args end as args, r.error
from carillon.runs r where {OF_GROUP} and ($3::timestamptz is null or (r.created_at, r.id) < ($3, $4::uuid))
order by r.created_at desc, r.id desc limit $5
"""
MESSAGE_GROUPS = """
select fingerprint, domain, queue, min(reason) as message, count(*) as count, min(received_at) as first_at,
       max(received_at) as last_at, (array_agg(id order by received_at desc))[1:5] as sample
from carillon.dead_letters where $1::text is null or domain = $1
group by fingerprint, domain, queue order by last_at desc limit $2
"""
_MESSAGE = "select id, domain, queue, reason, fingerprint, body, size, headers, received_at from carillon.dead_letters"
MESSAGE = f"{_MESSAGE} where id = $1"
MESSAGES = f"""
{_MESSAGE} where fingerprint = $1 and ($2::timestamptz is null or (received_at, id) < ($2, $3::uuid))
order by received_at desc, id desc limit $4
"""
STANDING = """
select count(*) filter (where size is null) as whole, count(*) filter (where size is not null) as cut,
       max(received_at) as newest
from carillon.dead_letters where fingerprint = $1 and ($2::timestamptz is null or received_at <= $2)
having count(*) > 0
"""
TAKE_MESSAGE = "delete from carillon.dead_letters where id = $1 returning queue, body, size, headers"
TAKE_OLDEST = """
delete from carillon.dead_letters where id = any(array(
    select id from carillon.dead_letters where fingerprint = $1 and received_at <= $2 and size is null
    order by received_at, id limit $3 for update skip locked
)) returning id, queue, body, headers, received_at
"""
TAKE_GROUP = "delete from carillon.dead_letters where fingerprint = $1 returning id"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGroup:
    """Failed runs of one task that failed in one way."""

    fingerprint: str
    domain: str
    task: str
    type: str | None
    #: Of the newest of them.
    message: str | None
    count: int
    first_at: datetime
    last_at: datetime
    #: Up to five, newest first.
    sample: Sequence[UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageGroup:
    """Messages of one queue that could not be read for one reason."""

    fingerprint: str
    domain: str
    queue: str
    message: str
    count: int
    first_at: datetime
    last_at: datetime
    sample: Sequence[UUID]


class Standing(NamedTuple):
    """What there is of a group of messages: how many can be redelivered as they are, and how many were cut."""

    whole: int
    cut: int
    #: When the newest of them came.
    newest: datetime


class DeadLetters:
    """Lists them, and hands messages to their queue again or throws them away."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def runs(self, domain: str | None = None, limit: int = 50) -> list[RunGroup]:
        """Groups of failed runs, the newest failure first."""
        rows = await self._ledger.pool.fetch(RUN_GROUPS, domain, min(limit, MOST_ROWS))
        return [RunGroup(**row) for row in map(dict, rows)]

    async def messages(self, domain: str | None = None, limit: int = 50) -> list[MessageGroup]:
        """Groups of unreadable messages, the newest first."""
        rows = await self._ledger.pool.fetch(MESSAGE_GROUPS, domain, min(limit, MOST_ROWS))
        return [MessageGroup(**row) for row in map(dict, rows)]

    async def runs_of(
        self, fingerprint: str, task: str | None = None, limit: int = 50, after: Cursor | None = None
    ) -> list[asyncpg.Record]:
        """The failed runs of one group, the newest first; arguments beyond 8 KB are left out."""
        return await self._ledger.pool.fetch(RUNS, fingerprint, task, *(after or (None, None)), min(limit, MOST_ROWS))

    async def of_group(self, fingerprint: str, limit: int = 50, after: Cursor | None = None) -> list[asyncpg.Record]:
        """The messages of one group, the newest first, with body (bytes), headers, and the size of a body that was cut.

        Of `after` the first part is when a message came.
        """
        return await self._ledger.pool.fetch(MESSAGES, fingerprint, *(after or (None, None)), min(limit, MOST_ROWS))

    async def standing(self, fingerprint: str, until: datetime | None = None) -> Standing | None:
        """What there is of a group of messages that came until then; None when there is nothing."""
        row = await self._ledger.pool.fetchrow(STANDING, fingerprint, until)
        return None if row is None else Standing(*row)

    async def message(self, letter: UUID) -> asyncpg.Record | None:
        """One message, with body (bytes), headers, and the size of a body that was cut."""
        return await self._ledger.pool.fetchrow(MESSAGE, letter)

    async def redeliver(
        self, letter: UUID, transport: Transport, actor: Actor, reason: str | None = None, *, body: bytes | None = None
    ) -> bool:
        """Hand a message to its queue again, perhaps mended; False when it is not there (any more).

        Raises `PlatformUnavailableError` when the transport does not take it, and `RunStateError` when it was cut and
        is not mended; then it is still there.
        """
        async with self._ledger.transaction() as connection:
            taken = await connection.fetchrow(TAKE_MESSAGE, letter)
            if taken is None:
                return False
            if body is None and taken["size"] is not None:
                raise RunStateError(cut_message(taken["size"]))
            # Before the commit: what both the transport and the ledger then have is delivered twice, and dropped once.
            await transport.redeliver(taken["queue"], taken["body"] if body is None else body, taken["headers"])
            entry = actor.did("message.redelivered", str(letter), reason, queue=taken["queue"], mended=body is not None)
            await record(connection, entry)
        return True

    async def redeliver_oldest(
        self,
        fingerprint: str,
        transport: Transport,
        actor: Actor,
        reason: str | None = None,
        *,
        until: datetime,
        most: int = REDELIVERED,
    ) -> int:
        """Hand the oldest messages of a group to their queue again, those that came until then and were not cut.

        At most 20; returns how many. What cannot be read there either comes back, later than `until`. Raises
        `PlatformUnavailableError` when the transport does not take one; then all of them are still there, and those
        before it are delivered twice.
        """
        async with self._ledger.transaction() as connection:
            rows = await connection.fetch(TAKE_OLDEST, fingerprint, until, min(most, REDELIVERED))
            for row in sorted(rows, key=lambda row: (row["received_at"], row["id"])):
                await transport.redeliver(row["queue"], row["body"], row["headers"])
            if rows:
                await record(connection, actor.did("message.redelivered", fingerprint, reason, messages=len(rows)))
        return len(rows)

    async def discard(self, fingerprint: str, actor: Actor, reason: str | None = None) -> int:
        """Throw the messages of one group away; returns how many those were."""
        async with self._ledger.transaction() as connection:
            gone = await connection.fetch(TAKE_GROUP, fingerprint)
            if gone:
                await record(connection, actor.did("message.discarded", fingerprint, reason, messages=len(gone)))
        return len(gone)


def cut_message(size: int) -> str:
    """The sentence about a message that cannot be redelivered as it is kept."""
    return (
        f"of this message only the first {MOST_KEPT_BYTES:,} of {size:,} bytes are kept; "
        "give a whole body, or discard it and let its sender send it again"
    )
