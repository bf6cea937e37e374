"""Places at what only so many may use at once, as rows that are leased."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger

#: One at a time takes a place of a name, so that two do not count each other out.
LOCK = "select pg_advisory_xact_lock(hashtextextended('carillon places ' || $1, 0))"
CLEAR = "delete from carillon.places where name = $1 and leased_until <= clock_timestamp()"
TAKE = """
insert into carillon.places (owner, name, leased_until) select $3, $1, clock_timestamp() + $4::interval
where (select count(*) from carillon.places where name = $1) < $2
returning owner
"""
LEAVE = "delete from carillon.places where owner = $1"


class Places:
    """The places of all workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def take(self, name: str, most: int, owner: UUID, for_: timedelta) -> bool:
        """Take a place, where there is one."""
        async with self._ledger.transaction() as connection:
            await connection.execute(LOCK, name)
            await connection.execute(CLEAR, name)
            return await connection.fetchrow(TAKE, name, most, owner, for_) is not None

    async def leave(self, owner: UUID) -> None:
        """Leave a place to somebody else."""
        await self._ledger.pool.execute(LEAVE, owner)
