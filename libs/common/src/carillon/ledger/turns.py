"""Turns at what is used at a rate, taken from the buckets in which starts of runs are counted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger

#: No task can have this in its name, and so none has such a bucket.
PREFIX = "turns "
#: A bucket that lacks less than the microsecond by which moments are kept has its turn.
ROUNDING = timedelta(microseconds=1)

#: Takes a turn, also one to come ($3: how far the bucket may be from full), and says how far it is then.
TAKE = """
insert into carillon.buckets as b (task, gate, full_at) values ($1, '', now() + $2::interval)
on conflict (task, gate) do update set full_at = greatest(b.full_at, now()) + $2::interval
where greatest(b.full_at, now()) + $2::interval <= now() + $3::interval
returning full_at - now() as owed
"""
OWED = "select greatest(full_at - now(), interval '0') as owed from carillon.buckets where task = $1 and gate = ''"


class TurnTaken(NamedTuple):
    """A turn that was taken, or would be the next; and after how long it comes."""

    taken: bool
    after: timedelta


class Turns:
    """The turns of all workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def take(self, name: str, every: timedelta, burst: int, wait: timedelta) -> TurnTaken:
        """Take the next turn, where it comes within `wait`; one comes back in `every`, and `burst` may be together."""
        bucket = every * burst
        owed = await self._ledger.pool.fetchval(TAKE, PREFIX + name, every, bucket + wait + ROUNDING)
        if owed is not None:
            return TurnTaken(taken=True, after=max(owed - bucket, timedelta(0)))
        owed = await self._ledger.pool.fetchval(OWED, PREFIX + name) or timedelta(0)
        return TurnTaken(taken=False, after=max(owed + every - bucket, ROUNDING))
