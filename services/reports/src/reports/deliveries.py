"""Whom a report reached, and who did not take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.dataset import Frozen
from reports.errors import NobodyReachedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carillon.workflows.gathering import Gathered


class Refusal(Frozen):
    """A recipient who did not get the report, and why."""

    recipient: str
    reason: str


class Delivered(Frozen):
    """What became of one report that was mailed."""

    delivered: tuple[str, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def complaint(self) -> str | None:
        """That not all were reached, and why the first was not; None where all were."""
        if not self.refused:
            return None
        first, count = self.refused[0], len(self.refused) + len(self.delivered)
        return f"{len(self.refused)} of {count} recipients were not reached; {first.recipient}: {first.reason}"


def delivered_to(recipients: Sequence[str], mailed: Gathered[Any]) -> Delivered:
    """What became of mailing it to each; raises `NobodyReachedError` where it reached none of them."""
    missed = sorted((*mailed.failed, *mailed.skipped), key=lambda one: one.at)
    delivered = Delivered(
        delivered=tuple(recipients[at] for at in mailed.successful),
        refused=tuple(Refusal(recipient=recipients[one.at], reason=one.reason) for one in missed),
    )
    if not delivered.delivered:
        raise NobodyReachedError(str(delivered.complaint))
    return delivered
