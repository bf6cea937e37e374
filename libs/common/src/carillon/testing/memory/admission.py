"""Letting runs in, in memory: every run is, for the twin keeps no limits."""

from __future__ import annotations

from uuid import UUID

from carillon.ledger.admission import Admission, Admitted


class MemoryAdmission(Admission):
    """Has nothing to let in: no run waits for a limit here."""

    async def limited(self, domain: str) -> bool:  # noqa: ARG002 - of the real one
        """False, whatever the tasks declare."""
        return False

    async def waiting(self, domain: str, most: int) -> int:  # noqa: ARG002 - of the real one
        """None."""
        return 0

    async def admit(self, domain: str, *, patient: bool = False) -> Admitted:  # noqa: ARG002 - of the real one
        """Nothing to let in."""
        return Admitted(0, more=False, next_in=None)

    async def charge(self, domain: str) -> None:
        """No buckets."""

    async def why(self, run: UUID) -> None:
        """None: no run waits for a limit."""
