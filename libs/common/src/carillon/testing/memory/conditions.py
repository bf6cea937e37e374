"""Submits under a condition, and what follows the end of a run that somebody awaits, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from carillon import clock
from carillon.ledger.conditions import (
    Conditions,
    all_accepted,
    conflict_of,
    needs_of,
    refuse_kept_out,
    refuse_unknown_needs,
    turns,
)
from carillon.ledger.followups import CallBack, Followups, verdict
from carillon.ledger.records import NewRun, Submitted, Unique
from carillon.testing.memory.cancelling import cancel_all
from carillon.testing.memory.store import WAITING, Row, Store, copied

if TYPE_CHECKING:
    from carillon.testing.memory.ledger import MemoryLedger

#: Needs that ended like this are met.
GOOD = frozenset({"completed", "partial"})
#: What ended this long ago and was not followed up is followed up by the sweeper.
FORGOTTEN = timedelta(seconds=3)


class MemoryConditions(Conditions):
    """Accepts what may not be accepted by itself."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._memory = ledger

    async def submit(self, batch: Sequence[tuple[NewRun, bool]]) -> list[Submitted]:
        """Accept runs in order, all or none; raises as the real one does."""
        runs = [run for run, _ in batch]
        replaced: list[UUID] = []
        outcomes: dict[int, Submitted] = {}
        with self._memory.store.all_or_none():
            for turn in turns(runs):
                outcomes |= self._clear_away({at: runs[at] for at in turn}, replaced)
                fresh = [at for at in turn if at not in outcomes]
                outcomes |= all_accepted(fresh, await self._memory.accept([batch[at] for at in fresh]))
            self._await(runs, outcomes)
        await self._memory.followups.follow(replaced)
        return [outcomes[at] for at in range(len(runs))]

    async def accept(self, run: NewRun, connection: object = None) -> Submitted:  # noqa: ARG002 - of the real one
        """Accept a run that may have to wait for others."""
        outcomes = all_accepted([0], await self._memory.accept([(run, False)]))
        self._await([run], outcomes)
        return outcomes[0]

    def _clear_away(self, runs: Mapping[int, NewRun], replaced: list[UUID]) -> dict[int, Submitted]:
        keepers = {
            at: keeper
            for at, run in runs.items()
            if run.unique is not None and (keeper := self._keeper_of(run, run.unique)) is not None
        }
        refuse_kept_out(runs, keepers)
        stays = {}
        for at, keeper in keepers.items():
            if conflict_of(runs[at]) == "keep" or keeper["state"] not in WAITING:
                stays[at] = Submitted(keeper["id"], created=False)
                continue
            message = f"the run {runs[at].id} took its place"
            self._memory.store.free_slot(keeper)
            self._memory.store.bury(keeper, "cancelled", error={"type": "Replaced", "message": message})
            replaced += [keeper["id"]] if keeper["awaited"] else []
        return stays

    def _await(self, runs: Sequence[NewRun], outcomes: Mapping[int, Submitted]) -> None:
        store, needed = self._memory.store, needs_of(runs, outcomes)
        known = {one: None for of_one in needed.values() for one in of_one if store.run(one) is not None}
        refuse_unknown_needs(runs, needed, known)
        for at, of_one in needed.items():
            for one in of_one:
                if one in store.live:
                    store.live[one]["awaited"] = True
            store.needs[runs[at].id] = {one: _outcome(store, one) for one in of_one}
        resolve(store, [runs[at].id for at in needed])

    def _keeper_of(self, run: NewRun, unique: Unique) -> Row | None:
        """The newest run that keeps this one out; a submit that is sent again is not kept out."""
        now, key = clock.now(), unique.key_for(run.args)

        def keeps_out(row: Row) -> bool:
            if (row["unique_key"], row["task"]) != (key, run.task):
                return False
            executes = row["state"] == "running" and unique.until == "ended"
            was_replaced = (row["error"] or {}).get("type") == "Replaced"
            is_fresh = unique.window is not None and row["created_at"] > now - unique.window and not was_replaced
            return row["state"] in WAITING or executes or is_fresh

        found = [row for row in self._memory.store.runs() if keeps_out(row)]
        keeper = max(found, key=lambda row: (row["created_at"], row["id"]), default=None)
        is_again = run.idempotency_key is not None and run.id in self._memory.store.causes
        return None if keeper is None or keeper["id"] == run.id or is_again else keeper


class MemoryFollowups(Followups):
    """Does what follows the end of runs."""

    def __init__(self, ledger: MemoryLedger, call_back: CallBack) -> None:
        super().__init__(ledger, call_back)
        self._memory = ledger

    async def follow(self, ended: Sequence[UUID]) -> None:
        """Follow up ended runs, and those that end because of it."""
        store = self._memory.store
        while ended:
            taken = [row for run in ended if (row := store.ended.get(run)) is not None and row["awaited"]]
            for row in taken:
                row["awaited"] = False
            told = {row["id"]: row["state"] for row in taken}
            freed = [run for run, needs in store.needs.items() if needs.keys() & told]
            for run in freed:
                needs = store.needs[run]
                needs |= {one: told[one] for one in needs.keys() & told}
            next_ = resolve(store, freed)
            await self._memory.workflows.tell([row["id"] for row in taken])
            for row in taken:
                if row["cancel"] is not None:
                    next_ += cancel_all(store, row["id"], row["cancel"])[1]
            called = [_told(row) for row in taken if row["callback_url"] is not None]
            if called:
                afterwards = await self.call_back(called, None)
                await afterwards()
            ended = next_

    async def sweep(self) -> int:
        """Follow up what whoever ended it did not; returns how many runs those were."""
        before = clock.now() - FORGOTTEN
        left = [
            row["id"] for row in self._memory.store.ended.values() if row["awaited"] and row["finished_at"] < before
        ]
        await self.follow(left)
        return len(left)


def resolve(store: Store, pending: Sequence[UUID]) -> list[UUID]:
    """Let pending runs go whose needs are met, cancel those whose needs cannot be; returns awaited ones of these."""
    gone = []
    for run in pending:
        row = store.live.get(run)
        if row is None or row["state"] != "pending" or run not in store.needs:
            continue
        outcomes = store.needs[run]
        bad = {str(one): outcome for one, outcome in outcomes.items() if outcome is not None and outcome not in GOOD}
        ended = sum(outcome is not None for outcome in outcomes.values())
        counted = {"after": row["after"], "needs": len(outcomes), "ended": ended, "good": ended - len(bad)}
        goes = verdict(counted)
        if goes:
            delay = timedelta(seconds=row["after"]["delay_seconds"])
            met = row["after"] | {"met": True}
            row |= {"state": "queued", "after": met, "run_at": max(row["run_at"], clock.now() + delay)}
            store.wake_for(row)
        elif goes is False:
            first = min(bad)
            message = f"it needed the run {first}, which {'was cancelled' if bad[first] == 'cancelled' else 'failed'}"
            store.bury(row, "cancelled", error={"type": "NeedFailed", "message": message})
            gone += [run] if row["awaited"] else []
    return gone


def _outcome(store: Store, run: UUID) -> str | None:
    row = store.ended.get(run)
    return None if row is None else row["state"]


def _told(row: Row) -> Row:
    names = ("id", "domain", "task", "state", "attempt", "callback_url", "finished_at")
    return copied({name: row[name] for name in names} | {"error": (row["error"] or {}).get("message")})
