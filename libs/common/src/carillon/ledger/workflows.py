"""Workflows in the ledger: parked while they wait, told of what they wait for, and read when they go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson

from carillon.errors import NotFoundError
from carillon.ledger.arrays import run_arrays
from carillon.ledger.audit import Action, Actor, Entry, record
from carillon.ledger.cancelling import cancel_all
from carillon.ledger.group_commit import GroupCommit
from carillon.ledger.records import NewRun
from carillon.ledger.statements import workflows as statements
from carillon.workflows.records import History, NewStep, Parking, Step

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

_STEP = (
    "seq", "kind", "name", "saw", "at", "digest", "run_id", "outcome", "result", "error", "attempt", "started_at",
    "ended_at",
)  # fmt: skip


class Parked(NamedTuple):
    """What came of parking: whether limits count the workflow, and which of the runs the transport is to be given."""

    limited: bool
    given: frozenset[UUID]


class Workflows:
    """Lets workflows wait, and go on."""

    def __init__(self, ledger: Ledger, *, linger: float) -> None:
        self._ledger = ledger
        #: Lets one wait (worker, parking, whether each new run is given to the transport right after): what came of it,
        #: and None where it was not the current attempt.
        self.park = GroupCommit(self._park, linger=linger)
        #: All that is recorded of one that is under way.
        self.history = GroupCommit(self._history, most=50, linger=0.0)
        #: Of one that is under way, and of these steps of it, what is recorded of those that have ended.
        self.fresh = GroupCommit(self._fresh, most=100, linger=0.0)

    async def _park(self, batch: Sequence[tuple[UUID, Parking, Sequence[bool]]]) -> Sequence[Parked | None]:
        """Park workflows of one worker."""
        batch_of_one = sorted(batch, key=lambda item: item[1].id)
        parkings = [parking for _, parking, _ in batch_of_one]
        steps = [(parking.id, step) for parking in parkings for step in parking.steps]
        voided = [(parking.id, seq) for parking in parkings for seq in parking.voided]
        runs = [step.run for _, step in steps if step.run is not None]
        given = [is_given for _, _, of_one in batch_of_one for is_given in of_one]
        rows = await self._ledger.pool.fetch(
            statements.PARK,
            batch[0][0],
            *_parking_arrays(parkings),
            *_step_arrays(steps),
            [workflow for workflow, _ in voided],
            [seq for _, seq in voided],
            *run_arrays(runs, dispatched=given),
        )
        parked = {row["id"]: Parked(row["limited"], frozenset(row["given"])) for row in rows}
        return [parked.get(parking.id) for _, parking, _ in batch]

    async def _history(self, batch: Sequence[UUID]) -> Sequence[History]:
        rows: dict[UUID, list[Mapping[str, Any]]] = {}
        for row in await self._ledger.pool.fetch(statements.HISTORY, list(set(batch))):
            rows.setdefault(row["workflow_id"], []).append(dict(row))
        return [history_of(rows.get(workflow, [])) for workflow in batch]

    async def _fresh(self, batch: Sequence[tuple[UUID, Sequence[int]]]) -> Sequence[History]:
        pairs = [(workflow, seq) for workflow, awaited in batch for seq in awaited]
        workflows = list({workflow for workflow, _ in batch})
        of_pairs = [workflow for workflow, _ in pairs], [seq for _, seq in pairs]
        rows: dict[UUID, list[Mapping[str, Any]]] = {}
        for row in await self._ledger.pool.fetch(statements.FRESH, workflows, *of_pairs):
            rows.setdefault(row["workflow_id"], []).append(dict(row))
        return [history_of(rows.get(workflow, [])) for workflow, _ in batch]

    async def ring(self, domain: str) -> int:
        """End sleeps and waits of a domain's workflows that are over, up to 500; returns how many."""
        ended: int = await self._ledger.pool.fetchval(statements.RING, domain)
        late: int = await self._ledger.pool.fetchval(statements.LATE, domain)
        return ended + late

    async def next_ring(self, domain: str) -> float | None:
        """Seconds until the next sleep or wait of a domain's workflows is over; None when there is none."""
        seconds: float | None = await self._ledger.pool.fetchval(statements.NEXT_RING, domain)
        return seconds

    async def tell(self, ended: Sequence[UUID], connection: Connection | None = None) -> None:
        """Tell workflows of these runs that have ended, those of them that were steps."""
        await (connection or self._ledger.pool).execute(statements.TELL, list(ended))

    async def hear(self, events: Sequence[UUID]) -> int:
        """Give these recorded events to the workflows that await them; returns how many waits that ended."""
        met: int = await self._ledger.pool.fetchval(statements.HEAR, list(events))
        return met

    async def look_back(self, workflows: Sequence[UUID]) -> int:
        """Give these workflows the events that came before they waited for them; returns how many waits that ended."""
        met: int = await self._ledger.pool.fetchval(statements.LOOK_BACK, list(workflows))
        return met

    async def tell_untold(self, domain: str) -> int:
        """Tell workflows of ends that they were not told of; returns how many those were."""
        untold = [row["run_id"] for row in await self._ledger.pool.fetch(statements.UNTOLD, domain)]
        if untold:
            await self.tell(untold)
        return len(untold)

    async def hear_unheard(self, age: timedelta) -> int:
        """Give out events of this age that were not; returns how many waits that ended."""
        unmet = [row["id"] for row in await self._ledger.pool.fetch(statements.UNMET, age)]
        return await self.hear(unmet) if unmet else 0

    async def stop(self, runs: Sequence[UUID], workflow: UUID) -> None:
        """Cancel the runs of steps that a workflow does not want any more, with all that they submitted."""
        told = {"type": "Cancelled", "message": f"the workflow {workflow} does not wait for it any more"}
        async with self._ledger.transaction() as connection:
            family = await cancel_all(connection, list(runs), told)
        await self._ledger.followups.follow(family.awaited)

    async def decide(
        self, workflow: UUID, seq: int, decision: Mapping[str, Any], actor: Actor, reason: str | None
    ) -> None:
        """Answer what a workflow asks people; raises `NotFoundError` where it asks nothing like that (any more)."""
        async with self._ledger.transaction() as connection:
            encoded = orjson.dumps(decision).decode()
            row = await connection.fetchrow(statements.DECIDE, workflow, seq, encoded)
            if row is None:
                raise NotFoundError(no_decision(workflow, seq))
            await record(connection, decided(workflow, seq, row["name"], decision, actor, reason))


def history_of(rows: Sequence[Mapping[str, Any]]) -> History:
    """What is recorded of a workflow; of one that has ended meanwhile, nothing."""
    if not rows:
        return History()
    steps = [step_of(row) for row in rows if row["seq"] is not None]
    first = rows[0]
    return History(steps=steps, told=first["told"], cancel=first["cancel"], origin=first["origin"])


def step_of(row: Mapping[str, Any]) -> Step:
    """A step, of its row."""
    return Step(**{name: row[name] for name in _STEP})


def _parking_arrays(parkings: Sequence[Parking]) -> list[list[Any]]:
    return [
        [parking.id for parking in parkings],
        [parking.attempt for parking in parkings],
        [parking.wake_at for parking in parkings],
        [parking.knows_cancel for parking in parkings],
        [orjson.dumps(parking.origin).decode() for parking in parkings],
    ]


def _step_arrays(steps: Sequence[tuple[UUID, NewStep]]) -> list[list[Any]]:
    return [
        [workflow for workflow, _ in steps],
        [step.seq for _, step in steps],
        [step.kind for _, step in steps],
        [step.name for _, step in steps],
        [step.digest for _, step in steps],
        [",".join(map(str, step.saw)) for _, step in steps],
        [step.at for _, step in steps],
        [None if step.run is None else step.run.id for _, step in steps],
        [step.due_at for _, step in steps],
        [orjson.dumps(step.match).decode() if step.kind == "event" else None for _, step in steps],
    ]


def decided(
    workflow: UUID, seq: int, asked: str, decision: Mapping[str, Any], actor: Actor, reason: str | None
) -> Entry:
    """The entry in the audit trail."""
    action: Action = "workflow.approved" if decision["approved"] else "workflow.refused"
    return actor.did(action, str(workflow), reason, step=seq, asked=asked)


def no_decision(workflow: UUID, seq: int) -> str:
    """The sentence about a step that nobody has to decide about."""
    return f"step {seq} of the workflow {workflow} waits for no decision (any more); look at the workflow"


def runs_of(parking: Parking) -> list[NewRun]:
    """The runs that begin when a workflow is parked."""
    return [step.run for step in parking.steps if step.run is not None]
