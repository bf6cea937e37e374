"""What policies keep, in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from carillon import clock
from carillon.ledger.circuits import Announce, Circuits
from carillon.ledger.effects import Effects, Kept, Lease
from carillon.ledger.last_good import Good, LastGood, Place
from carillon.ledger.places import Places
from carillon.ledger.turns import PREFIX, ROUNDING, Turns, TurnTaken
from carillon.policies.circuit import Circuit, Seen, Step
from carillon.testing.memory.store import Row

if TYPE_CHECKING:
    from carillon.testing.memory.ledger import MemoryLedger


class MemoryCircuits(Circuits):
    """The breakers of all workers."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._kept = ledger.store.breakers

    async def read(self, name: str) -> Seen | None:
        """A breaker as it is; None for one that never failed."""
        return Seen(self._kept[name], clock.now()) if name in self._kept else None

    async def change(self, name: str, step: Step, announce: Announce) -> Seen:
        """Let a breaker take a step, and say so where its state is another then; returns what it is."""
        before, now = self._kept.get(name, Circuit()), clock.now()
        after = self._kept[name] = step(before, now)
        if after.state is not before.state:
            afterwards = await announce(Seen(after, now), None)
            await afterwards()
        return Seen(after, now)


class MemoryEffects(Effects):
    """The effects of all workers."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._kept = ledger.store.effects

    async def begin(self, lease: Lease, for_: timedelta, keep: timedelta) -> Kept | None:
        """Lease an effect, or tell what is known of it where somebody else has it or has done it."""
        now = clock.now()
        kept = self._kept.get((lease.name, lease.key))
        if kept is not None and kept["kept_until"] > now:
            is_dead = kept["result"] is None and kept["leased_until"] <= now
            if not is_dead or kept["arguments"] != lease.arguments:
                return Kept(kept["arguments"], kept["result"], kept["leased_until"] - now)
        self._kept[lease.name, lease.key] = {
            "arguments": lease.arguments,
            "owner": lease.owner,
            "result": None,
            "leased_until": now + for_,
            "kept_until": now + for_ + keep,
        }
        return None

    async def end(self, lease: Lease, result: str, keep: timedelta) -> bool:
        """Keep the result of an effect; False where its lease ended, and somebody else took it over."""
        kept = self._mine(lease)
        if kept is None:
            return False
        kept |= {"result": result, "kept_until": clock.now() + keep}
        return True

    async def give_back(self, lease: Lease) -> None:
        """Let somebody else do it: this call did not."""
        if self._mine(lease) is not None:
            del self._kept[lease.name, lease.key]

    async def forget(self) -> int:
        """Forget the effects that are no longer to be kept; returns how many."""
        return _forget(self._kept)

    def _mine(self, lease: Lease) -> Row | None:
        kept = self._kept.get((lease.name, lease.key))
        is_mine = kept is not None and kept["owner"] == lease.owner and kept["result"] is None
        return kept if is_mine else None


class MemoryLastGood(LastGood):
    """The last good values of all workers."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._kept = ledger.store.last_good

    async def keep(self, place: Place, value: str, keep: timedelta) -> None:
        """Keep a value that is good now in the place of an earlier one."""
        now = clock.now()
        self._kept[place] = {"value": value, "at": now, "kept_until": now + keep}

    async def read(self, place: Place) -> Good | None:
        """The value that was good last; None where there is none that is still kept."""
        kept, now = self._kept.get(place), clock.now()
        return None if kept is None or kept["kept_until"] <= now else Good(kept["value"], now - kept["at"])

    async def forget(self) -> int:
        """Forget the values that are no longer to be kept; returns how many."""
        return _forget(self._kept)


def _forget(rows: dict[Place, Row]) -> int:
    old = [place for place, kept in rows.items() if kept["kept_until"] <= clock.now()]
    for place in old:
        del rows[place]
    return len(old)


class MemoryTurns(Turns):
    """The turns of all workers."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._buckets = ledger.store.buckets

    async def take(self, name: str, every: timedelta, burst: int, wait: timedelta) -> TurnTaken:
        """Take the next turn, where it comes within `wait`; one comes back in `every`, and `burst` may be together."""
        now, place, bucket = clock.now(), (PREFIX + name, ""), every * burst
        full_at = max(self._buckets.get(place, now), now) + every
        after = full_at - now - bucket
        if after > wait + ROUNDING:
            return TurnTaken(taken=False, after=after)
        self._buckets[place] = full_at
        return TurnTaken(taken=True, after=max(after, timedelta(0)))


class MemoryPlaces(Places):
    """The places of all workers."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._kept = ledger.store.places

    async def take(self, name: str, most: int, owner: UUID, for_: timedelta) -> bool:
        """Take a place, where there is one."""
        now = clock.now()
        for other in [other for other, kept in self._kept.items() if kept["leased_until"] <= now]:
            del self._kept[other]
        if sum(kept["name"] == name for kept in self._kept.values()) >= most:
            return False
        self._kept[owner] = {"name": name, "leased_until": now + for_}
        return True

    async def leave(self, owner: UUID) -> None:
        """Leave a place to somebody else."""
        self._kept.pop(owner, None)
