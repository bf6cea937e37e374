"""Cancelling runs with all that they submitted, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from carillon import clock
from carillon.ledger.cancelling import Cancelled
from carillon.testing.memory.store import WAITING, Row, Store


def cancel_all(store: Store, run: UUID, told: Mapping[str, Any]) -> tuple[Cancelled, list[UUID]]:
    """Cancel a run with all that it submitted, for what is `told`; also returns those that ended and are awaited."""
    family = _family(store, run)
    parked = [row for row in family if row["state"] in WAITING and row["wake_at"] is not None]
    waiting = [row for row in family if row["state"] in WAITING and row["wake_at"] is None]
    running = [row for row in family if row["state"] == "running"]
    for row in waiting:
        store.free_slot(row)
        store.bury(row, "cancelled", error=dict(told))
    for row in running:
        if row["cancel"] is None:
            row |= {"cancel": dict(told), "awaited": True}
            store.wake(str(row["worker_id"]))
    for row in parked:
        # A workflow that is under way is told, and cleans up.
        if row["cancel"] is None:
            state = "queued" if row["state"] in {"pending", "paused"} else row["state"]
            row |= {"cancel": dict(told), "awaited": True, "run_at": clock.now(), "state": state}
            store.wake_for(row)
    return Cancelled(len(waiting), len(running) + len(parked)), [row["id"] for row in waiting if row["awaited"]]


def _family(store: Store, run: UUID) -> list[Row]:
    """A run and all that it submitted that live."""
    family, grows = {run}, True
    while grows:
        children = {row["id"] for row in store.runs() if row["parent_id"] in family and not _undoes(store, row)}
        grows = not children <= family
        family |= children
    return [row for one in sorted(family) if (row := store.live.get(one)) is not None]


def _undoes(store: Store, row: Row) -> bool:
    """Whether a run takes back a step of a saga; that has to be done, also when the saga is cancelled amid that."""
    step = store.steps.get(row["parent_id"], {}).get(row["step"])
    return step is not None and step["undoes"] is not None
