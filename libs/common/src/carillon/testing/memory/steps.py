"""Reading workflows in memory: their steps with what is known of their runs, and what they ask people."""

from __future__ import annotations

import orjson

from carillon.ledger.steps import DECIDED, MOST_RESULT_BYTES
from carillon.testing.memory.store import Row, Store, copied
from carillon.testing.memory.workflows import store_steps


def seen_rows(store: Store, workflow: Row) -> list[Row]:
    """The steps of a workflow with what is known of their runs, as the real ledger joins them."""
    return [_seen_row(store, workflow, step) for step in store_steps(store, workflow["id"])]


def _seen_row(store: Store, workflow: Row, step: Row) -> Row:
    run = None if step["outcome"] is not None or step["run_id"] is None else store.run(step["run_id"])
    left = "forgotten" if step["kind"] == "task" else "waiting" if workflow["finished_at"] is None else "cancelled"
    error, known = step["error"] or {}, run or {}
    size = None if step["result"] is None else len(orjson.dumps(step["result"]))
    return step | {
        "state": step["outcome"] or known.get("state", left),
        "started_at": step["started_at"] or known.get("started_at"),
        "run_attempt": None if run is None else run["attempt"] - run["uncounted"],
        "run_parks": known.get("wake_at") is not None, "run_at": known.get("run_at"),
        "error_type": error.get("type"), "error_message": error.get("message"), "result_bytes": size,
        "result": None if size is not None and size > MOST_RESULT_BYTES else step["result"],
    }  # fmt: skip


def open_decisions(store: Store) -> list[Row]:
    """The approvals and repairs that workflows wait for, those first that were asked for first."""
    found = [
        {name: step[name] for name in ("workflow_id", "seq", "kind", "name", "at", "due_at")}
        | {name: store.live[workflow][name] for name in ("task", "domain", "state", "labels")}
        for workflow, steps in store.steps.items()
        if workflow in store.live
        for step in map(copied, steps.values())
        if step["outcome"] is None and step["kind"] in DECIDED
    ]
    return sorted(found, key=lambda row: (row["at"], row["workflow_id"], row["seq"]))
