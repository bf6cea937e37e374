"""What sources answered last while they were well, as rows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger

KEEP = """
insert into carillon.last_good (name, key, value, at, kept_until) values ($1, $2, $3, now(), now() + $4::interval)
on conflict (name, key) do update set value = excluded.value, at = excluded.at, kept_until = excluded.kept_until
"""
READ = "select value, now() - at as age from carillon.last_good where name = $1 and key = $2 and kept_until > now()"
FORGET = """
with old as (
    select name, key from carillon.last_good where kept_until <= now() order by kept_until limit 5000
    for update skip locked
)
delete from carillon.last_good g using old where g.name = old.name and g.key = old.key returning g.key
"""

#: A name and a key.
Place = tuple[str, str]


class Good(NamedTuple):
    """A value that was good, as JSON text, and how long ago."""

    value: str
    age: timedelta


class LastGood:
    """The last good values of all workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def keep(self, place: Place, value: str, keep: timedelta) -> None:
        """Keep a value that is good now in the place of an earlier one."""
        await self._ledger.pool.execute(KEEP, *place, value, keep)

    async def read(self, place: Place) -> Good | None:
        """The value that was good last; None where there is none that is still kept."""
        row = await self._ledger.pool.fetchrow(READ, *place)
        return None if row is None else Good(row["value"], row["age"])

    async def forget(self) -> int:
        """Forget up to 5,000 values that are no longer to be kept; returns how many."""
        return len(await self._ledger.pool.fetch(FORGET))
