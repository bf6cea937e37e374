"""Effects that must not happen twice, as rows: leased while they are done, and kept with their result."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger

#: A new key; one whose result nobody needs to know any more; or one whose owner died, for the same arguments.
BEGIN = """
insert into carillon.effects as e (name, key, arguments, owner, leased_until, kept_until)
values ($1, $2, $3, $4, now() + $5::interval, now() + $5::interval + $6::interval)
on conflict (name, key) do update set arguments = excluded.arguments, owner = excluded.owner, result = null,
    leased_until = excluded.leased_until, kept_until = excluded.kept_until
where e.kept_until <= now()
   or (e.result is null and e.leased_until <= now() and e.arguments = excluded.arguments)
returning owner
"""
KEPT = """
select arguments, result, leased_until - now() as left from carillon.effects where name = $1 and key = $2
"""
END = """
update carillon.effects set result = $4, kept_until = now() + $5::interval
where name = $1 and key = $2 and owner = $3 and result is null returning name
"""
GIVE_BACK = "delete from carillon.effects where name = $1 and key = $2 and owner = $3 and result is null"
FORGET = """
with old as (
    select name, key from carillon.effects where kept_until <= now() order by kept_until limit 5000
    for update skip locked
)
delete from carillon.effects e using old where e.name = old.name and e.key = old.key returning e.key
"""


class Lease(NamedTuple):
    """Who does an effect, under which key, with what arguments."""

    name: str
    key: str
    #: Their fingerprint.
    arguments: str
    owner: UUID


class Kept(NamedTuple):
    """What is known of an effect that somebody else has begun."""

    arguments: str
    #: As JSON text; None while it is under way.
    result: str | None
    #: How long its owner still has.
    left: timedelta


class Effects:
    """The effects of all workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def begin(self, lease: Lease, for_: timedelta, keep: timedelta) -> Kept | None:
        """Lease an effect, or tell what is known of it where somebody else has it or has done it."""
        while True:
            if await self._ledger.pool.fetchrow(BEGIN, *lease, for_, keep) is not None:
                return None
            row = await self._ledger.pool.fetchrow(KEPT, lease.name, lease.key)
            # Where it was given back between the two, it is there to be begun.
            if row is not None:
                return Kept(row["arguments"], row["result"], row["left"])

    async def end(self, lease: Lease, result: str, keep: timedelta) -> bool:
        """Keep the result of an effect; False where its lease ended, and somebody else took it over."""
        row = await self._ledger.pool.fetchrow(END, lease.name, lease.key, lease.owner, result, keep)
        return row is not None

    async def give_back(self, lease: Lease) -> None:
        """Let somebody else do it: this call did not."""
        await self._ledger.pool.execute(GIVE_BACK, lease.name, lease.key, lease.owner)

    async def forget(self) -> int:
        """Forget up to 5,000 effects that are no longer to be kept; returns how many."""
        return len(await self._ledger.pool.fetch(FORGET))
