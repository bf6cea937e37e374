"""What limits count, in memory: slots in the rows of a `Store`, and starts in its buckets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from math import floor
from typing import Any
from uuid import UUID

from carillon import clock
from carillon.ledger.admission import every
from carillon.testing.memory.store import READY, Row, Store

#: In these states a run that was let in has a slot.
SLOTTED = READY | {"running"}


def waiting(store: Store, domain: str, task: str | None = None) -> Iterator[Row]:
    """Runs of a domain, or of one task of it, that wait until they are let in, whenever they are due."""
    return (
        row
        for row in store.live.values()
        if row["gated"] and row["domain"] == domain and row["state"] in READY and task in {None, row["task"]}
    )


def admitted(store: Store, domain: str, task: str | None = None) -> list[Row]:
    """Runs that were let in and have not ended: each has a slot, whatever became of its worker."""
    return [
        row
        for row in store.live.values()
        if row["gate"] is not None
        and not row["gated"]
        and row["domain"] == domain
        and row["state"] in SLOTTED
        and task in {None, row["task"]}
    ]


def limits_of(store: Store, task: str) -> Mapping[str, Any] | None:
    """The limits of a task; empty where only its domain has one, and None for none."""
    return store.tasks.get(task, {}).get("limits")


def seconds_until(moment: datetime | None) -> float:
    """How many seconds a moment is ahead; less than nothing when it has passed, and nothing when there is none."""
    return 0.0 if moment is None else (moment - clock.now()).total_seconds()


def gate_again(store: Store, domain: str, changed: str | None = None) -> None:
    """Let what was let in, and nobody has started, wait again: of a domain or task that has other limits now.

    Where none is named that is what is held, which gives its slots to others.
    """
    for row in admitted(store, domain):
        concerned = store.is_held(row) if changed is None else changed in {row["domain"], row["task"]}
        if concerned and row["state"] != "running":
            row |= {"gated": True, "dispatched_at": None}


def begin_anew(store: Store, domain: str, changed: str) -> None:
    """Let in by other limits from now on, as if nothing had been let in and not started yet."""
    gate_again(store, domain, changed)
    store.turns.pop(changed, None)
    for bucket in [bucket for bucket in store.buckets if bucket[0] == changed]:
        del store.buckets[bucket]


def charge(store: Store, domain: str) -> None:
    """Keep the buckets of what was let in, and has not started, from filling."""
    now = clock.now()
    unstarted = Counter((row["task"], row["gate"]) for row in admitted(store, domain) if row["state"] != "running")
    by_task: Counter[str] = Counter()
    for (task, gate), number in unstarted.items():
        by_task[task] += number
        if (each := every((limits_of(store, task) or {}).get("rate_per_key"))) is not None:
            empty = now + timedelta(seconds=number * each)
            store.buckets[task, gate] = max(store.buckets.get((task, gate), empty), empty)
    for task, number in by_task.items():
        if (each := every((limits_of(store, task) or {}).get("rate"))) is not None:
            empty = now + timedelta(seconds=number * each)
            turn = store.turn(task)
            store.turns[task] = turn | {"full_at": max(turn["full_at"] or empty, empty)}


def openings(store: Store, domain: str) -> Iterator[datetime]:
    """When buckets have a start again for which runs of the domain wait; some of these moments may have passed."""
    for task, gate in {(row["task"], row["gate"]) for row in waiting(store, domain)}:
        limits, buckets = limits_of(store, task) or {}, (store.turn(task)["full_at"], store.buckets.get((task, gate)))
        for rate, full_at in zip(("rate", "rate_per_key"), buckets, strict=True):
            if rate in limits and full_at is not None:
                yield _opening(full_at, limits[rate])


def _opening(full_at: datetime, rate: Mapping[str, Any]) -> datetime:
    """When a bucket that is full at a moment has its first start: no microsecond earlier than it has it."""
    before = (rate["burst"] - 1) * rate["per_seconds"] / rate["number"]
    return full_at - timedelta(microseconds=floor(before * 1e6 + 1e-3))


def measured(store: Store, run: UUID) -> Row | None:
    """What a waiting run is measured by; None for one that waits for no limit."""
    row = store.live.get(run)
    if row is None or not row["gated"] or row["state"] not in READY:
        return None
    domain, task, gate = row["domain"], row["task"], row["gate"]
    limits, slotted = limits_of(store, task), admitted(store, domain)
    buckets = {"rate": store.turn(task)["full_at"], "rate_per_key": store.buckets.get((task, gate))}
    opens = {
        name: seconds_until(_opening(full_at, limits[name]))
        for name, full_at in buckets.items()
        if limits and name in limits and full_at is not None
    }
    return {
        "domain": domain,
        "task": task,
        "gate": gate,
        "limits": limits,
        "of_domain": store.domains.get(domain),
        "in_domain": len(slotted),
        "in_task": sum(each["task"] == task for each in slotted),
        "in_key": sum((each["task"], each["gate"]) == (task, gate) for each in slotted),
        "rate_seconds": opens.get("rate"),
        "key_rate_seconds": opens.get("rate_per_key"),
    }
