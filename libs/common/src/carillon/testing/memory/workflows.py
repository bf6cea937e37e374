"""Workflows in memory: what the statements of the real ledger do, over the rows of a `Store`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from carillon import clock
from carillon.errors import NotFoundError
from carillon.ledger.audit import Actor
from carillon.ledger.forks import Forks, check_forked, first_of, told_of
from carillon.ledger.records import Submitted
from carillon.ledger.workflows import Parked, Workflows, decided, history_of, no_decision, runs_of, step_of
from carillon.testing.memory.cancelling import cancel_all
from carillon.testing.memory.store import READY, Row, Store, copied, same_json
from carillon.workflows.records import History, NewStep, Parking

if TYPE_CHECKING:
    from carillon.testing.memory.ledger import MemoryLedger

#: Kinds of steps that people decide about.
DECIDED = frozenset({"approval", "repair"})


class Asked(NamedTuple):
    """What a workflow waits for somebody to decide: step `seq` of it, an approval or a repair."""

    workflow: UUID
    seq: int
    kind: str
    name: str


class MemoryWorkflows(Workflows):
    """Lets workflows wait, and go on. Nothing here awaits between looking and writing."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger, linger=0.0)
        self._memory = ledger
        self._store = ledger.store

    async def _park(self, batch: Sequence[tuple[UUID, Parking, Sequence[bool]]]) -> list[Parked | None]:
        return [await self._park_one(worker, parking, given) for worker, parking, given in batch]

    async def _park_one(self, worker: UUID, parking: Parking, given: Sequence[bool]) -> Parked | None:
        row = self._store.live.get(parking.id)
        current = (parking.attempt, "running", worker)
        if row is None or (row["attempt"], row["state"], row["worker_id"]) != current:
            return None
        told = row["told"] or 0
        goes_on = told >= parking.wake_at or (row["cancel"] is not None and not parking.knows_cancel)
        row |= {
            "attempt": row["attempt"] + 1, "uncounted": row["uncounted"] + 1, "worker_id": None, "told": told,
            "dispatched_at": None, "gated": row["gate"] is not None, "run_at": clock.now(), "expires_at": None,
            "wake_at": parking.wake_at, "origin": dict(parking.origin), "state": "queued" if goes_on else "pending",
        }  # fmt: skip
        steps = self._store.steps.setdefault(parking.id, {})
        steps |= {step.seq: _step_row(row, step) for step in parking.steps}
        for seq in parking.voided:
            if steps[seq]["outcome"] is None and steps[seq]["kind"] != "task":
                steps[seq] |= {"outcome": "cancelled", "ended_at": clock.now()}
        runs = runs_of(parking)
        accepted = await self._memory.accept(list(zip(runs, given, strict=True)))
        if goes_on:
            self._store.wake_for(row)
        is_given = [getattr(outcome, "given", False) for outcome in accepted]
        return Parked(
            row["gate"] is not None, frozenset(run.id for run, is_ in zip(runs, is_given, strict=True) if is_)
        )

    async def _history(self, batch: Sequence[UUID]) -> list[History]:
        return [self._history_of(workflow) for workflow in batch]

    async def _fresh(self, batch: Sequence[tuple[UUID, Sequence[int]]]) -> list[History]:
        whole = [(self._history_of(workflow), awaited) for workflow, awaited in batch]
        return [
            replace(history, steps=[s for s in history.steps if s.seq in awaited and s.outcome is not None])
            for history, awaited in whole
        ]

    def _history_of(self, workflow: UUID) -> History:
        row = self._store.live.get(workflow)
        if row is None:
            return History()
        whole = {"told": row["told"] or 0, "cancel": row["cancel"], "origin": row["origin"]}
        steps = self._store.steps.get(workflow, {})
        return history_of([copied(whole | steps[seq]) for seq in sorted(steps)] or [copied(whole | {"seq": None})])

    async def ring(self, domain: str) -> int:
        """End sleeps and waits of a domain's workflows that are over."""
        now, rung = clock.now(), 0
        for row in [row for row in self._waits() if row["domain"] == domain]:
            if row["due_at"] is not None and row["due_at"] <= now:
                self._end(row, "completed" if row["kind"] == "sleep" else "expired")
                rung += 1
        late = [row for row in self._store.live.values() if row["domain"] == domain and self._is_late(row, now)]
        for row in late:
            message = f"it was not ended by its deadline, {row['deadline_at']:%F %T} UTC"
            row |= {"cancel": {"type": "DeadlineExceeded", "message": message}, "run_at": now}
            if row["state"] == "pending":
                row["state"] = "queued"
            self._store.wake_for(row)
        return rung + len(late)

    def _is_late(self, row: Row, now: datetime) -> bool:
        is_parked = row["wake_at"] is not None and row["state"] != "running" and row["cancel"] is None
        return is_parked and row["deadline_at"] is not None and row["deadline_at"] <= now

    def next_moment(self) -> list[datetime]:
        """When sleeps, waits and deadlines of workflows are over."""
        parked = [row["deadline_at"] for row in self._store.live.values() if row["wake_at"] is not None]
        return [moment for moment in (*parked, *(row["due_at"] for row in self._waits())) if moment is not None]

    async def next_ring(self, domain: str) -> float | None:
        """Seconds until the next sleep or wait of a domain's workflows is over; None when there is none."""
        due = [row["due_at"] for row in self._waits() if row["domain"] == domain and row["due_at"] is not None]
        return (min(due) - clock.now()).total_seconds() if due else None

    async def tell(self, ended: Sequence[UUID], connection: object = None) -> None:  # noqa: ARG002 - of the real one
        """Tell workflows of these runs that have ended, those of them that were steps."""
        for run in ended:
            if (row := self._store.ended.get(run)) is not None:
                self.tell_end(row)

    def tell_end(self, run: Row) -> None:
        """Tell the workflow of a run that has ended, if it was a step."""
        step = self._store.steps.get(run["parent_id"], {}).get(run["step"])
        if step is None or step["outcome"] is not None:
            return
        step |= {name: copied(run)[name] for name in ("result", "error", "started_at")}
        step["attempt"] = run["attempt"] - run["uncounted"]
        self._end(step, run["state"])

    async def hear(self, events: Sequence[UUID]) -> int:
        """Give these recorded events to the workflows that await them; returns how many waits that ended."""
        waits = [row for row in self._waits() if row["kind"] == "event"]
        return sum(self._give(row, [self._store.events[event] for event in events]) for row in waits)

    async def look_back(self, workflows: Sequence[UUID]) -> int:
        """Give these workflows the events that came before they waited for them; returns how many waits that ended."""
        waits = [row for row in self._waits() if row["kind"] == "event" and row["workflow_id"] in workflows]
        return sum(self._give(row, self._store.events.values()) for row in waits)

    async def tell_untold(self, domain: str) -> int:  # noqa: ARG002
        """None: nothing is done by halves here."""
        return 0

    async def hear_unheard(self, age: timedelta) -> int:  # noqa: ARG002
        """None, as above."""
        return 0

    async def stop(self, runs: Sequence[UUID], workflow: UUID) -> None:
        """Cancel the runs of steps that a workflow does not want any more, with all that they submitted."""
        told = {"type": "Cancelled", "message": f"the workflow {workflow} does not wait for it any more"}
        for run in runs:
            await self._memory.followups.follow(cancel_all(self._store, run, told)[1])

    async def decide(
        self, workflow: UUID, seq: int, decision: Mapping[str, Any], actor: Actor, reason: str | None
    ) -> None:
        """Answer what a workflow asks people; raises `NotFoundError` where it asks nothing like that (any more)."""
        step = self._store.steps.get(workflow, {}).get(seq)
        is_open = step is not None and step["outcome"] is None and step["kind"] in DECIDED
        if step is None or not is_open or workflow not in self._store.live:
            raise NotFoundError(no_decision(workflow, seq))
        step["result"] = dict(decision)
        self._end(step, "completed")
        self._store.record(decided(workflow, seq, step["name"], decision, actor, reason))

    def decisions(self) -> list[Asked]:
        """What workflows wait for people to decide, in the order in which they asked."""
        asked = [row for row in self._waits() if row["kind"] in DECIDED]
        return [Asked(*(row[name] for name in ("workflow_id", "seq", "kind", "name"))) for row in asked]

    def _waits(self) -> list[Row]:
        """The steps that have not ended, of workflows that have not."""
        live = (steps for workflow, steps in self._store.steps.items() if workflow in self._store.live)
        return [row for steps in live for row in steps.values() if row["outcome"] is None]

    def _give(self, step: Row, events: Any) -> bool:
        had = {row["event_id"] for row in self._store.steps[step["workflow_id"]].values()}
        for event in events:
            fits = event["type"] == step["name"] and event["recorded_at"] >= step["since"] and event["id"] not in had
            if fits and all(same_json(_found(event["data"], name), value) for name, value in step["match"].items()):
                step |= {"event_id": event["id"], "result": {"data": copied(event)["data"]}}
                self._end(step, "completed")
                return True
        return False

    def _end(self, step: Row, outcome: str) -> None:
        """End a step, and let its workflow go on if it was told of enough."""
        step |= {"outcome": outcome, "ended_at": clock.now()}
        row = self._store.live.get(step["workflow_id"])
        if row is None:
            return
        row["told"] = (row["told"] or 0) + 1
        if row["state"] == "pending" and row["told"] >= row["wake_at"]:
            row |= {"state": "queued", "run_at": clock.now()}
        if row["state"] in READY:
            self._store.wake_for(row)


class MemoryForks(Forks):
    """Makes forks."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self._memory = ledger
        self._store = ledger.store

    async def fork(
        self, run: UUID, actor: Actor, reason: str | None = None, *, from_step: int | None = None
    ) -> Submitted:
        """Run a workflow that has ended again from a step on; what was before is not done again."""
        original, rows = self._store.ended.get(run), store_steps(self._store, run)
        steps = [step_of(row) for row in rows]
        check_forked(run, original, steps)
        assert original is not None
        first = first_of(steps, from_step)
        submitted = await self._memory.replays.again(original, actor, None)
        if submitted.created:
            kept = {row["seq"]: row | {"workflow_id": submitted.id} for row in rows if row["seq"] < first}
            self._store.steps[submitted.id] = kept
            begun = {"attempt": 2, "uncounted": 1, "told": told_of(steps, first), "wake_at": 0}
            self._store.live[submitted.id] |= begun
            details = {"as_run": str(submitted.id), "from_step": first}
            self._store.record(actor.did("workflow.forked", str(run), reason, **details))
        return submitted


def _step_row(workflow: Row, step: NewStep) -> Row:
    same = ("seq", "kind", "name", "digest", "at", "due_at")
    absent = ("event_id", "outcome", "result", "error", "attempt", "started_at", "ended_at")
    return {
        **dict.fromkeys(absent),
        **{name: getattr(step, name) for name in same},
        "workflow_id": workflow["id"],
        "domain": workflow["domain"],
        "saw": list(step.saw),
        "run_id": None if step.run is None else step.run.id,
        "match": dict(step.match),
        "since": workflow["created_at"],
    }


def _found(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def store_steps(store: Store, workflow: UUID) -> Sequence[Row]:
    """The steps of a workflow, in order."""
    steps = store.steps.get(workflow, {})
    return [copied(steps[seq]) for seq in sorted(steps)]
