"""Cancelling runs with all that they submitted, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from carillon.ledger.cancelling import Cancelled
from carillon.testing.memory.store import WAITING, Row, Store


def cancel_all(store: Store, run: UUID, told: Mapping[str, Any]) -> tuple[Cancelled, list[UUID]]:
    """Cancel a run with all that it submitted, for what is `told`; also returns those that ended and are awaited."""
    family = _family(store, run)
    waiting = [row for row in family if row["state"] in WAITING]
    running = [row for row in family if row["state"] == "running"]
    for row in waiting:
        store.free_slot(row)
        store.bury(row, "cancelled", error=dict(told))
    for row in running:
        if row["cancel"] is None:
            row |= {"cancel": dict(told), "awaited": True}
            store.wake(str(row["worker_id"]))
    return Cancelled(len(waiting), len(running)), [row["id"] for row in waiting if row["awaited"]]


def _family(store: Store, run: UUID) -> list[Row]:
    """A run and all that it submitted that live."""
    family, grows = {run}, True
    while grows:
        children = {row["id"] for row in store.runs() if row["parent_id"] in family}
        grows = not children <= family
        family |= children
    return [row for one in sorted(family) if (row := store.live.get(one)) is not None]
