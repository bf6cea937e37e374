"""What people do to runs and queues, in memory: cancel, pause, resume, and run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from carillon import clock
from carillon.errors import InvalidArgumentsError
from carillon.ledger.audit import Actor
from carillon.ledger.cancelling import Cancelled, cancellation
from carillon.ledger.records import Submitted
from carillon.ledger.replays import REPLAYABLE, Replays, answer, checked, repetition
from carillon.ledger.statements.rows import gate_of
from carillon.ledger.steering import Hold, Steered, Steering, unknown_name, word
from carillon.testing.memory.cancelling import cancel_all
from carillon.testing.memory.conditions import resolve
from carillon.testing.memory.store import WAITING, Row, as_kept, refuse, same_json

if TYPE_CHECKING:
    from carillon.testing.memory.ledger import MemoryLedger


class MemorySteering(Steering):
    """What people do to runs and queues."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._memory = ledger
        self._store = ledger.store

    async def cancel(self, run: UUID, actor: Actor, reason: str | None = None) -> Cancelled:
        """Cancel a run and whatever it submitted."""
        cancelled, awaited = cancel_all(self._store, run, cancellation(actor, reason))
        if any(cancelled):
            self._store.record(actor.did("run.cancelled", str(run), reason, **cancelled._asdict()))
        await self._memory.followups.follow(awaited)
        return cancelled

    async def wanted(self, running: Sequence[UUID]) -> list[tuple[UUID, str]]:
        """Which of these executing runs somebody wants cancelled, and why."""
        rows = [row for run in running if (row := self._store.live.get(run)) is not None]
        return [
            (row["id"], row["cancel"]["message"])
            for row in rows
            if row["state"] == "running" and row["cancel"] is not None
        ]

    async def pause_run(self, run: UUID, actor: Actor, reason: str | None = None) -> Steered:
        """Let a run that waits not start until it is resumed."""
        row = self._store.live.get(run)
        paused = row is not None and row["state"] in WAITING - {"paused"}
        if row is not None and paused:
            self._store.free_slot(row)
            row |= {"state": "paused", "dispatched_at": None}
            self._store.record(actor.did("run.paused", str(run), reason))
        return Steered(paused, self._state(run))

    async def resume_run(self, run: UUID, actor: Actor, reason: str | None = None) -> Steered:
        """Let a paused run go on."""
        row = self._store.live.get(run)
        resumed = row is not None and row["state"] == "paused"
        if row is not None and resumed:
            tried = "retrying" if row["attempt"] > 1 else "queued"
            waits = tried if row["after"] is None or "met" in row["after"] else "pending"
            if row["wake_at"] is not None and row["told"] < row["wake_at"] and row["cancel"] is None:
                waits = "pending"
            row |= {"state": waits, "run_at": max(row["run_at"], clock.now()), "gated": row["gate"] is not None}
            self._store.wake_for(row)
            awaited = resolve(self._store, [run])
            self._store.record(actor.did("run.resumed", str(run), reason))
            await self._memory.followups.follow(awaited)
        return Steered(resumed, self._state(run))

    def _state(self, run: UUID) -> str | None:
        row = self._store.run(run)
        return None if row is None else row["state"]

    async def pause(self, name: str, actor: Actor, reason: str | None = None) -> bool:
        """Let nothing of a domain, or of one task, start; False when it was paused before."""
        self._check_known(name)
        if name in self._store.holds:
            return False
        self._store.holds[name] = {"name": name, "actor": actor.name, "reason": reason, "since": clock.now()}
        # What is held gives its slots to others.
        self._store.wake(gate_of(name.partition(".")[0]))
        self._store.record(actor.did(word(name, "paused"), name, reason))
        return True

    async def resume(self, name: str, actor: Actor, reason: str | None = None) -> bool:
        """Let a paused domain or task start its runs again; False when it was not paused."""
        if self._store.holds.pop(name, None) is None:
            self._check_known(name)
            return False
        self._store.record(actor.did(word(name, "resumed"), name, reason))
        domain = name.partition(".")[0]
        for woken in (domain, gate_of(domain)):
            self._store.wake(woken)
        return True

    def _check_known(self, name: str) -> None:
        if not any(name in {task["name"], task["domain"]} for task in self._store.tasks.values()):
            raise InvalidArgumentsError(unknown_name(name))

    async def holds(self) -> list[Hold]:
        """What is paused, by name."""
        return [Hold(**self._store.holds[name]) for name in sorted(self._store.holds)]


class MemoryReplays(Replays):
    """Repeats runs."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._memory = ledger
        self._store = ledger.store

    async def replay(
        self, run: UUID, actor: Actor, reason: str | None = None, *, args: Mapping[str, Any] | None = None
    ) -> Submitted:
        """Run a failed, cancelled or partial run again; asking twice makes one."""
        original = checked(run, self._store.ended.get(run))
        submitted = await self.again(original, actor, args)
        if submitted.created:
            details = {"as_run": str(submitted.id), "edited": args is not None}
            self._store.record(actor.did("run.replayed", str(run), reason, **details))
        return submitted

    async def again(self, original: Mapping[str, Any], actor: Actor, args: Mapping[str, Any] | None) -> Submitted:
        """Run an ended run again, whatever became of it."""
        run = original["id"]
        rows = {row["id"]: row for row in self._store.runs()}
        first = _first(rows, run)
        for row in rows.values():
            if row["state"] not in REPLAYABLE and row["replay_of"] and _first(rows, row["id"]) == first:
                is_same = args is None or same_json(row["args"], as_kept(orjson.dumps(args).decode()))
                return answer(row["id"], row["state"], is_same=is_same)
        return await self._memory.conditions.accept(repetition(original, actor, args))

    async def replay_all(self, *_: object, **__: object) -> list[Submitted]:
        """Not in memory."""
        refuse("acts on many runs")

    async def settle(self, runs: Sequence[UUID], actor: Actor, reason: str | None = None) -> int:
        """Say of failed runs that nothing more has to be done about them; returns of how many that was news."""
        rows = [row for run in runs if (row := self._store.ended.get(run)) is not None]
        news = [row for row in rows if row["state"] == "failed" and row["settled_at"] is None]
        for row in news:
            row["settled_at"] = clock.now()
        if len(news) == 1:
            self._store.record(actor.did("run.settled", str(news[0]["id"]), reason))
        elif news:
            ids = [str(row["id"]) for row in news]
            self._store.record(actor.did("runs.settled", f"{len(ids)} runs", reason, runs=ids))
        return len(news)


def _first(rows: Mapping[UUID, Row], run: UUID) -> UUID:
    """The run that a replay repeats in the end."""
    while (row := rows.get(run)) is not None and row["replay_of"] is not None:
        run = row["replay_of"]
    return run
