"""Letting runs in, in memory: what the statements of the real admission do, over the rows of a `Store`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import timedelta
from heapq import nsmallest
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from carillon import clock
from carillon.ledger.admission import Admission, Admitted, Turn, Turnstile, let_in, starts
from carillon.testing.memory.counts import (
    admitted,
    charge,
    gate_again,
    limits_of,
    openings,
    seconds_until,
    waiting,
)
from carillon.testing.memory.store import Row, Store

if TYPE_CHECKING:
    from carillon.testing.memory.ledger import MemoryLedger


class Key(NamedTuple):
    """A key that has room: those of its due runs that go first, and the seconds that its bucket is from being full."""

    gate: str
    due: Sequence[Row]
    owed: float


class MemoryAdmission(Admission):
    """Lets runs in. Nothing here awaits between counting and writing, so nobody else lets in meanwhile."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._store = ledger.store

    async def limited(self, domain: str) -> bool:
        """Whether a task of the domain has limits, or the domain itself."""
        return any(row["domain"] == domain and row["limits"] is not None for row in self._store.tasks.values())

    async def waiting(self, domain: str, most: int) -> int:
        """How many runs of a domain wait until they are let in; no more than `most` are counted."""
        return sum(1 for _ in islice(waiting(self._store, domain), most))

    async def admit(self, domain: str, *, patient: bool = False) -> Admitted:
        """Let in what the limits allow."""
        if not await self.waiting(domain, 1):
            return Admitted(0, more=False, next_in=None)
        return await let_in(MemoryTurnstile(self._store, domain), patient=patient)

    async def charge(self, domain: str) -> None:
        """Keep the buckets of what was let in, and waits for a worker, from filling; and forget those that are full."""
        charge(self._store, domain)
        now = clock.now()
        for bucket in [bucket for bucket, full_at in self._store.buckets.items() if full_at < now]:
            del self._store.buckets[bucket]


class MemoryTurnstile(Turnstile):
    """What is counted and let in of one domain."""

    def __init__(self, store: Store, domain: str) -> None:
        self._store = store
        self._domain = domain

    async def room(self) -> int | None:
        """How many more runs of the domain may be at its workers; None where it has no limit."""
        limit = self._store.domains.get(self._domain)
        if limit is None:
            return None
        gate_again(self._store, self._domain)
        return max(0, limit - len(admitted(self._store, self._domain)))

    async def look(self) -> list[Row]:
        """The tasks of which runs wait, those first that were served longest ago, with what counts for their limits."""
        store = self._store
        tasks = {row["task"] for row in waiting(store, self._domain) if not store.is_held(row)}
        slotted = admitted(store, self._domain)
        counted = Counter(row["task"] for row in slotted)
        unstarted = Counter(row["task"] for row in slotted if row["state"] != "running")
        return [
            {
                "task": task,
                "limits": limits_of(store, task),
                "last_gate": store.turn(task)["last_gate"],
                "debt_seconds": seconds_until(store.turn(task)["full_at"]),
                "admitted": counted[task],
                "unstarted": unstarted[task],
            }
            for task in sorted(tasks, key=lambda task: (store.turn(task)["served"], task))
        ]

    async def let_go(self, task: str, most: int) -> int:
        """Let runs of a task go that has no limits any more; returns how many those were."""
        free = list(islice(waiting(self._store, self._domain, task), most))
        for row in free:
            row |= {"gated": False, "gate": None}
        self._store.wake(self._domain)
        return len(free)

    async def let_in(self, turn: Turn) -> tuple[int, bool]:
        """Let runs of a task in; how many. No key is left for another look, however many there are."""
        keys = list(islice(self._keys(turn), turn.room))
        share = ceil(turn.room / max(1, len(keys)))
        heads = sorted(
            (rank, position) for position, key in enumerate(keys) for rank in range(min(len(key.due), share))
        )[: turn.room]
        for rank, position in heads:
            keys[position].due[rank].update(gated=False, dispatched_at=None)
        if heads:
            self._serve(turn, [keys[position] for _, position in heads])
        return len(heads), False

    async def next_in(self) -> float | None:
        """Seconds until there is something to let in though no run ends before; None when there is nothing."""
        now = clock.now()
        due = (row["run_at"] for row in waiting(self._store, self._domain))
        ahead = [moment for moment in (*due, *openings(self._store, self._domain)) if moment > now]
        return seconds_until(min(ahead)) if ahead else None

    def _keys(self, turn: Turn) -> Iterator[Key]:
        """The keys that have room, and a run that is due: round they go, from the one after the last served."""
        by_key: dict[str, list[Row]] = defaultdict(list)
        for row in waiting(self._store, self._domain, turn.task):
            by_key[row["gate"]].append(row)
        slotted = admitted(self._store, self._domain, turn.task)
        busy = Counter(row["gate"] for row in slotted)
        unstarted = Counter(row["gate"] for row in slotted if row["state"] != "running")
        for gate in sorted(by_key, key=lambda gate: (turn.after is not None and gate <= turn.after, gate)):
            room, owed = turn.room, 0.0
            if turn.per_key is not None:
                room = min(room, turn.per_key - busy[gate])
            if turn.every_of_key is not None and turn.burst_of_key is not None:
                full_at = self._store.buckets.get((turn.task, gate))
                owed = max(0.0, unstarted[gate] * turn.every_of_key, seconds_until(full_at))
                room = min(room, starts(turn.burst_of_key, owed, turn.every_of_key))
            if room > 0 and (due := _first_due(by_key[gate], room, patient=turn.patient)):
                yield Key(gate, due, owed)

    def _serve(self, turn: Turn, served: Sequence[Key]) -> None:
        """Enter what was let in, key by key, in the buckets, and whose turn it was."""
        now, store = clock.now(), self._store
        if turn.every_of_key is not None:
            owed = {key.gate: key.owed for key in served}
            for gate, number in Counter(key.gate for key in served).items():
                store.buckets[turn.task, gate] = now + timedelta(seconds=owed[gate] + number * turn.every_of_key)
        entered: Row = {"last_gate": served[-1].gate, "served": store.next_turn()}
        if turn.every is not None and turn.owed is not None:
            entered["full_at"] = now + timedelta(seconds=turn.owed + len(served) * turn.every)
        store.turns[turn.task] = store.turn(turn.task) | entered
        store.wake(self._domain)


def _first_due(rows: Sequence[Row], most: int, *, patient: bool) -> list[Row]:
    """Those of a key's runs that go first: the most urgent, or where it is their turn those that wait longest."""
    now = clock.now()

    def place(row: Row) -> tuple[Any, Any]:
        return (row["run_at"], -row["priority"]) if patient else (-row["priority"], row["run_at"])

    due = (row for row in rows if row["run_at"] <= now and (row["expires_at"] is None or row["expires_at"] > now))
    # Of two that are due at one moment the first is the one that was accepted first: rows are in that order.
    return nsmallest(most, due, key=place)
