"""Forking workflows: a run of its own that keeps what was recorded before a step, and goes on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from carillon.errors import InvalidArgumentsError, RunStateError
from carillon.ledger.audit import Actor, record
from carillon.ledger.records import Submitted
from carillon.ledger.workflows import step_of
from carillon.workflows.records import CANCELLATION, Step

if TYPE_CHECKING:
    from carillon.ledger.ledger import Ledger

FORKED = """
select id, domain, task, state, args, labels, priority, event_id, cause, callback_url, replay_of, wake_at
from carillon.runs where id = $1 and ended_on < 'infinity'
"""
RECORDED = "select * from carillon.steps where workflow_id = $1 order by seq"
COPY = """
insert into carillon.steps (workflow_id, seq, domain, kind, name, digest, saw, at, run_id, due_at, match, fields,
    wanted, since, event_id, outcome, result, error, attempt, started_at, ended_at)
select $2, seq, domain, kind, name, digest, saw, at, run_id, due_at, match, fields,
    wanted, since, event_id, outcome, result, error, attempt, started_at, ended_at
from carillon.steps where workflow_id = $1 and seq < $3
"""
#: Its first attempt reads the record, as every later one does.
BEGUN = """
update carillon.runs_live set attempt = 2, uncounted = 1, told = $2, wake_at = 0 where id = $1
"""


class Forks:
    """Makes forks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def fork(
        self, run: UUID, actor: Actor, reason: str | None = None, *, from_step: int | None = None
    ) -> Submitted:
        """Run a workflow that has ended again from a step on, as a run of its own; what was before is not done again.

        Without a step it is the first that did not go well, or where there is none, the one after the last. It goes on
        in the code that there is now, which has to ask for the same steps before. Asking twice makes one, as of a
        replay. Raises `RunStateError` for a run that has not ended or is no workflow, `InvalidArgumentsError` for a
        step that it does not have, or before which one has not ended or a cancellation came, and
        `ReplayConflictError` as a replay does.
        """
        async with self._ledger.transaction() as connection:
            original = await connection.fetchrow(FORKED, run)
            steps = [step_of(dict(row)) for row in await connection.fetch(RECORDED, run)]
            check_forked(run, None if original is None else dict(original), steps)
            assert original is not None  # noqa: S101 - it was checked
            first = first_of(steps, from_step)
            submitted = await self._ledger.replays.repeat(connection, dict(original), actor)
            if submitted.created:
                await connection.execute(COPY, run, submitted.id, first)
                await connection.execute(BEGUN, submitted.id, told_of(steps, first))
                entry = actor.did("workflow.forked", str(run), reason, as_run=str(submitted.id), from_step=first)
                await record(connection, entry)
        return submitted


def check_forked(run: UUID, original: Mapping[str, Any] | None, steps: Sequence[Step]) -> None:
    """Raise `RunStateError` for a run that cannot be forked."""
    if original is None:
        message = f"the run {run} has not ended, or nobody knows it; cancel it first, or wait for its end"
        raise RunStateError(message)
    if original["wake_at"] is None or not steps:
        message = f"the run {run} of {original['task']} has no recorded steps; replay it from its beginning"
        raise RunStateError(message)


def first_of(steps: Sequence[Step], wanted: int | None) -> int:
    """The first step that is done anew; raises `InvalidArgumentsError` where it cannot be that one."""
    cancelled = next((step.seq for step in steps if CANCELLATION in step.saw), len(steps) + 1)
    bad = next((step.seq for step in steps if step.outcome in {None, "failed", "cancelled"}), len(steps) + 1)
    if wanted is None:
        return min(bad, cancelled)
    if not 1 <= wanted <= len(steps) + 1:
        message = f"the workflow has the steps 1 to {len(steps)}, so it cannot be forked from step {wanted}"
        raise InvalidArgumentsError(message)
    if wanted > cancelled:
        message = f"it was told of its cancellation before step {cancelled}; fork it from that one, or an earlier one"
        raise InvalidArgumentsError(message)
    if open_ := [step.seq for step in steps if step.seq < wanted and step.outcome is None and step.kind == "task"]:
        message = f"step {open_[0]} has not ended, and nobody would tell a fork of its end; fork from that one"
        raise InvalidArgumentsError(message)
    return wanted


def told_of(steps: Sequence[Step], first: int) -> int:
    """How many ends are among the steps that are kept."""
    return sum(step.seq < first and step.outcome is not None for step in steps)
