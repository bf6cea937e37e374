"""The history of one run, told from what is kept anyway: its row, its attempts, the audit trail, and what followed.

Nothing is written for it. So it tells every change of state, and of what is done again and again only the last time:
when a run was given to the transport.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from carillon.ledger.records import State

Row = Mapping[str, Any]

PLATFORM = "platform"
#: What an attempt leaves behind that did not end its run: the state, and how that is said.
_LEFT: Mapping[str, tuple[State, str]] = {
    "retried": (State.RETRYING, "failed, and is tried again"),
    "snoozed": (State.QUEUED, "asked to run again later"),
    "handed_back": (State.RETRYING, "was handed back by a worker that stopped"),
    "lost": (State.RETRYING, "lost its worker, and is tried again"),
}
#: What operators did to this run, or to all of its task or domain.
_DONE: Mapping[str, str] = {
    "run.paused": "paused",
    "run.resumed": "resumed",
    "run.cancelled": "cancelled, with all that it submitted",
    "run.settled": "settled: nothing more has to be done about it",
    "task.paused": "its task was paused",
    "task.resumed": "its task was resumed",
    "queue.paused": "its domain was paused",
    "queue.resumed": "its domain was resumed",
}
#: The entries of the audit trail that concern a run; what else there is, its row or what followed tells.
CONCERNING = tuple(_DONE)


@dataclass(frozen=True, slots=True)
class Change:
    """One moment in the life of a run."""

    at: datetime
    #: The state from then on; None where it stayed what it was.
    state: str | None
    #: The worker, key, person or service that did it, or `platform`.
    by: str
    #: What happened, in a few words, with the reason if one was given.
    what: str


def changes(
    run: Row, attempts: Sequence[Row], entries: Sequence[Row], said: Sequence[Row], replays: Sequence[Row]
) -> list[Change]:
    """Every change, first to last.

    `attempts` are all that ended, the last one too; `entries` are of the audit trail, newest first; `said` are events.
    """
    found = [
        *_accepted(run),
        *_operated(run, attempts, entries),
        *_tried(run, attempts),
        *_ended(run, entries),
        *(Change(event["recorded_at"], None, run["domain"], f"said {event['type']}") for event in said),
        *(Change(again["created_at"], None, again["actor"], f"run again as {again['id']}") for again in replays),
    ]
    # What happened in one moment stays in this order.
    return sorted(found, key=lambda change: change.at)


def _accepted(run: Row) -> Iterator[Change]:
    why = ""
    if run["replay_of"] is not None:
        why = f", to repeat {run['replay_of']}"
    elif run["cause"] is not None:
        why = f", to answer {run['cause']['type']}"
    elif run["parent_id"] is not None:
        why = f", submitted by the run {run['parent_id']}"
    waits = run["after"] is not None
    yield Change(run["created_at"], State.PENDING if waits else State.QUEUED, run["actor"], f"accepted{why}")
    if waits and run["attempt"] == 1 and run["state"] not in {State.PENDING, State.PAUSED} and not _was_let_down(run):
        yield Change(run["run_at"], State.QUEUED, PLATFORM, "what it waited for has ended")
    if run["dispatched_at"] is not None:
        yield Change(run["dispatched_at"], None, PLATFORM, "given to the transport")


def _was_let_down(run: Row) -> bool:
    return run["started_at"] is None and run["finished_at"] is not None


def _operated(run: Row, attempts: Sequence[Row], entries: Sequence[Row]) -> Iterator[Change]:
    for entry in reversed(entries):
        state = None
        if entry["action"] == "run.paused":
            state = State.PAUSED
        elif entry["action"] == "run.resumed":
            state = _resumed(run, [a for a in attempts if a["finished_at"] < entry["at"]])
        reason = f": {entry['reason']}" if entry["reason"] else ""
        yield Change(entry["at"], state, entry["actor"], f"{_DONE[entry['action']]}{reason}")


def _resumed(run: Row, before: Sequence[Row]) -> State:
    if run["after"] is not None:
        return State.PENDING
    return State.RETRYING if before else State.QUEUED


def _tried(run: Row, attempts: Sequence[Row]) -> Iterator[Change]:
    for attempt in attempts:
        worker, number = _worker(attempt), attempt["attempt"]
        if attempt["started_at"] is not None:
            yield Change(attempt["started_at"], State.RUNNING, worker, f"attempt {number} started")
        if attempt["outcome"] in _LEFT and not _is_end(run, attempt):
            state, said = _LEFT[attempt["outcome"]]
            by = PLATFORM if attempt["outcome"] == "lost" else worker
            yield Change(attempt["finished_at"], state, by, f"attempt {number} {said}{_told(attempt['error'])}")
    if run["state"] == State.RUNNING:
        yield Change(run["started_at"], State.RUNNING, _worker(run), f"attempt {run['attempt']} started")


def _is_end(run: Row, attempt: Row) -> bool:
    return run["finished_at"] is not None and attempt["attempt"] == run["attempt"]


def _ended(run: Row, entries: Sequence[Row]) -> Iterator[Change]:
    if run["finished_at"] is None:
        return
    error = run["error"] or {}
    executed = run["worker_id"] is not None and error.get("type") != "WorkerLost"
    by = error.get("by") or (_worker(run) if executed else PLATFORM)
    yield Change(run["finished_at"], run["state"], by, f"ended {run['state']}{_told(run['error'])}")
    if run["settled_at"] is not None and not any(entry["action"] == "run.settled" for entry in entries):
        yield Change(run["settled_at"], None, "an operator", "settled, with others: see the audit trail")


def _worker(row: Row) -> str:
    return PLATFORM if row["worker_id"] is None else f"worker {row['worker_id']}"


def _told(error: Mapping[str, Any] | None) -> str:
    if not error:
        return ""
    return f": {str(error.get('message', error.get('type', '')))[:200]}"
