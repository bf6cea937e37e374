"""Submitting many runs of one task together: in parts, and what is known when a part fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from taskiq import AsyncTaskiqTask
from taskiq.exceptions import SendTaskError

from carillon.options import SubmitOptions, labels_of

if TYPE_CHECKING:
    from carillon.task import Task

#: Runs that are submitted together, as one part.
MOST_TOGETHER = 1_000


class NotAllAcceptedError(SendTaskError):
    """Of many calls the later ones were not accepted; the cause is what `kiq` would have raised from.

    `accepted` has what `kiq` gives back for the calls before, in order: whole parts of 1,000. `positions` says which of
    all the calls are at fault, counted from 0, where the cause knows. Of the part that failed nothing was accepted,
    but where PostgreSQL did not answer some of it may have been.
    """

    __template__ = "{told}"
    told: str

    def __init__(self, accepted: Sequence[AsyncTaskiqTask[Any]], reason: Exception, *, is_keyed: bool) -> None:
        """After so many were accepted; `is_keyed` says that calling again is safe."""
        advice = (
            "the same calls with the same idempotency_key submit what is missing"
            if is_keyed
            else "`accepted` has them; with an idempotency_key the same calls again would submit only what is missing"
        )
        place = len(accepted)
        super().__init__(told=f"{place:,} runs were accepted, and then came {reason!r} (call {place:,} on); {advice}")
        self.accepted = list(accepted)
        self.positions = tuple(place + at for at in getattr(reason, "positions", ()))


async def submit_many(
    task: Task[..., Any], calls: Iterable[Mapping[str, Any]], options: SubmitOptions
) -> list[AsyncTaskiqTask[Any]]:
    """Submit a run for each call, as `Task.kiq_many` says."""
    labels = labels_of(options)
    broker: Any = task.broker
    accepted: list[AsyncTaskiqTask[Any]] = []
    waiting = iter(calls)
    try:
        while part := list(islice(waiting, MOST_TOGETHER)):
            ids = await broker.kick_many(task, part, labels, first=len(accepted))
            accepted += [AsyncTaskiqTask(id_, broker.result_backend, task.return_type) for id_ in ids]
    except Exception as error:
        raise NotAllAcceptedError(accepted, error, is_keyed="idempotency_key" in labels) from error
    return accepted
