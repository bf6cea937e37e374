"""What policies keep, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carillon import clock
from carillon.ledger.circuits import Announce, Circuits, Seen
from carillon.policies.circuit import Circuit, Step

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
