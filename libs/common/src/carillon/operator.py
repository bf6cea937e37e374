"""What an operator does, from Python: cancel, pause, resume, run again, settle, act on many, and clear dead letters.

```python
async with carillon.connect():
    operator = carillon.get_operator(reason="the disk is full")
    await operator.pause(domain="reports")
```
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from carillon import bulk, clock
from carillon.arguments import json_args
from carillon.dead_letters import DeadLetterOffice
from carillon.errors import (
    CarillonError,
    InvalidArgumentsError,
    NotConnectedError,
    NotFoundError,
    RunStateError,
    UnfitArgumentsError,
    UnknownTaskError,
)
from carillon.ledger.audit import Actor, account
from carillon.ledger.pages import MOST_ROWS, Row
from carillon.ledger.records import State, Submitted
from carillon.ledger.selections import RATE, Act, Progress, Selection
from carillon.ledger.steering import Hold, Steered, unknown_name
from carillon.ledger.steps import DECIDED, StepPlace
from carillon.platform import Platform, open_platforms
from carillon.shapes import faults_of

#: A run, by its id.
Named = UUID | str


class Cancellation(NamedTuple):
    """What cancelling a run did."""

    #: Of the run, afterwards; `running` where it executes and was asked to end.
    state: str
    #: How many runs (this one and those it submitted) ended at once, and how many execute and were asked to end.
    ended: int
    asked: int


class Operator:
    """Steers runs, tasks and domains in somebody's name.

    What is done is one transaction with its entry in the audit trail: who, why, and from where. What changes nothing is
    not recorded. Every call that names a run raises `NotFoundError` where nobody knows it (any more), and
    `RunStateError` where its state forbids what is asked; the sentence says what can be done instead. Raises
    `ValueError` for a reason beyond 500 characters.
    """

    def __init__(self, platform: Platform, actor: Actor, reason: str | None = None) -> None:
        # Refused now what the trail would refuse in the middle of an act.
        actor.did("run.cancelled", "", reason)
        #: Failed runs and unreadable messages, by the group.
        self.dead_letters = DeadLetterOffice(platform, actor, reason)
        self._platform = platform
        self._actor = actor
        self._reason = reason

    async def cancel(self, run: Named) -> Cancellation:
        """Cancel a run and all that it submitted: what waits ends at once, what executes is asked to.

        That ends when its code has stopped, at the latest with the grace that its task grants. What was cancelled
        before stays so; what ended otherwise raises `RunStateError`.
        """
        known = (await self._known(run))["id"]
        done = await self._platform.ledger.steering.cancel(known, self._actor, self._reason)
        state = State((await self._known(known))["state"])
        if not any(done) and state.is_terminal and state != State.CANCELLED:
            raise RunStateError(f"the run {known} has ended {state}, so there is nothing to cancel")
        return Cancellation(state, *done)

    async def pause(self, *, domain: str | None = None, task: str | None = None, run: Named | None = None) -> Steered:
        """Let nothing of a domain or of one task start until it is resumed, or let one run that waits not start.

        What executes goes on. Raises `InvalidArgumentsError` for a name that no domain or task has, and where several
        are given, or none.
        """
        steering, name = self._platform.ledger.steering, _name_of(domain, task, run)
        if run is None:
            return Steered(await steering.pause(name, self._actor, self._reason))
        paused = await steering.pause_run(_id(run), self._actor, self._reason)
        state = _state_of(run, paused)
        if state.is_terminal:
            raise RunStateError(f"the run {run} has ended {state}; only one that waits can be paused")
        if state != State.PAUSED:
            message = f"the run {run} executes already; cancel it, or pause its task so that no other starts"
            raise RunStateError(message)
        return paused

    async def resume(self, *, domain: str | None = None, task: str | None = None, run: Named | None = None) -> Steered:
        """Let what was paused start again: a domain, a task, or one run. Each stays held by the others.

        Raises `InvalidArgumentsError` for a name that no domain or task has, and where several are given, or none.
        """
        steering, name = self._platform.ledger.steering, _name_of(domain, task, run)
        if run is None:
            return Steered(await steering.resume(name, self._actor, self._reason))
        resumed = await steering.resume_run(_id(run), self._actor, self._reason)
        state = _state_of(run, resumed)
        if state.is_terminal:
            message = f"the run {run} has ended {state}; what failed or was cancelled can be replayed"
            raise RunStateError(message)
        return resumed

    async def holds(self) -> list[Hold]:
        """The domains and tasks of which nothing starts, by name, with who said so, why and since when."""
        return await self._platform.ledger.steering.holds()

    async def replay(self, run: Named, args: Mapping[str, Any] | None = None) -> Submitted:
        """Run what failed, was cancelled or is partial again as a run of its own, perhaps with other arguments.

        `args` are all of them, by name, and are checked against the schema that the task's domain registered. Asking
        twice makes one: while a replay lives, or when it completed, it is the answer. Raises `ReplayConflictError`
        where that one has other arguments than those named, `UnfitArgumentsError` for arguments that do not fit,
        `InvalidArgumentsError` for what is no JSON or beyond 256 KiB, and `UnknownTaskError` where no service offers
        the task any more, so that nobody can say whether they fit.
        """
        row = await self._known(run)
        if args is not None:
            args = await self._fitting(row["task"], args)
        return await self._platform.ledger.replays.replay(row["id"], self._actor, self._reason, args=args)

    async def settle(self, run: Named) -> bool:
        """Say of a failed run that nothing more has to be done about it: it leaves the dead letters, not the history.

        False where somebody said so before.
        """
        row = await self._known(run)
        if row["state"] != State.FAILED:
            raise RunStateError(f"the run {row['id']} is {row['state']}; only one that failed can be settled")
        return await self._platform.ledger.replays.settle([row["id"]], self._actor, self._reason) == 1

    async def approvals(self, after: StepPlace | None = None, limit: int = MOST_ROWS) -> list[Row]:
        """What workflows ask people, at most 500: approvals and repairs, those first that wait longest.

        Each names its workflow, its number there (`seq`), what is asked, since when, and when it is given up. For those
        after the last one of a page give that as `StepPlace(at, workflow_id, seq)`.
        """
        return await self._platform.history.decisions(after, limit)

    async def decide(self, run: Named, step: int, *, approve: bool, reason: str | None = None) -> None:
        """Approve or refuse what a workflow asks; of a repair, have it tried again, or say that it was done by hand.

        `step` is its number in the workflow; `reason` is told to the workflow too, and is the operator's own where it
        is not given. Whoever decides first has decided: raises `RunStateError` where that step waits for no decision
        (any more), and `NotFoundError` where the workflow has none of that number, or the run is no workflow.
        """
        known, why = (await self._known(run))["id"], self._reason if reason is None else reason
        # Refused before anything is done, as in `__init__`.
        self._actor.did("workflow.approved", str(known), why)
        at = clock.now().isoformat()
        decision = {"approved": approve, "by": self._actor.name, "reason": why or None, "at": at}
        try:
            await self._platform.ledger.workflows.decide(known, step, decision, self._actor, why)
        except NotFoundError as error:
            raise await self._undecidable(known, step) or error from None

    async def fork(self, run: Named, step: int | None = None) -> Submitted:
        """Run a workflow that has ended again from a step on, as a run of its own: what was before is not done again.

        Without a step it is the first that did not go well, or where all did, what comes after the last. It goes on in
        the code that there is now. Asking twice makes one, as of `replay`. Raises `RunStateError` where it has not
        ended, or is no workflow, `InvalidArgumentsError` for a step that it cannot be forked from, and
        `ReplayConflictError` as `replay` does.
        """
        known = (await self._known(run))["id"]
        return await self._platform.ledger.forks.fork(known, self._actor, self._reason, from_step=step)

    async def _undecidable(self, run: UUID, step: int) -> CarillonError | None:
        """Why nobody can decide about a step."""
        workflow = await self._platform.history.workflow(run, after=step - 1, limit=1)
        if workflow is None:
            return NotFoundError(f"the run {run} is no workflow, so there is nothing to decide")
        found = next((seen for seen in workflow.steps if seen.seq == step), None)
        if found is None:
            return NotFoundError(f"the workflow {run} has no step {step}; look at its graph for those it has")
        if found.kind not in DECIDED:
            return RunStateError(f"step {step} of the workflow {run} is no approval and no repair, but: {found.name}")
        if found.ended_at is None:
            # The workflow ended meanwhile, and the step never will.
            return RunStateError(f"the workflow {run} has ended, so there is nothing to decide any more")
        how = f"was decided by {found.result['by']}" if found.result else f"is {found.state}"
        return RunStateError(f"step {step} of the workflow {run} {how} already; nothing was changed")

    async def select(self, action: Act, **filters: Any) -> Selection:
        """Choose many runs, and see how many and some of them; nothing is done to them before `act`.

        `action` is cancel, replay, settle or delete, and the filters are those of `carillon.ledger.search.Search`,
        as of `Tracker.find`. What could not be acted upon is left out: only what has not ended is cancelled, only what
        ended is deleted, and only what failed, was cancelled or is partial is replayed, unless it was and that run
        lives or went well. Raises `InvalidArgumentsError` for other words, without any filter, and where more than
        1,000,000 runs fit.
        """
        return await bulk.select(self._platform, action, bulk.searched(filters), filters, self._actor)

    async def act(
        self,
        selection: Selection | UUID | str,
        *,
        rate: float = RATE,
        canary: bool = True,
        within: timedelta | None = None,
    ) -> Progress:
        """Act upon exactly what was selected, by it or by its `id`, until nothing remains.

        With `within` it ends after that time, but not before 500 runs, or 100 of a replay: call it again while
        something is `remaining`, and it goes on where it stopped. Each of these steps is a transaction with its entry
        in the audit trail. Of a replay one run goes ahead, and the others start when it has completed, `rate` (0.01 to
        10,000) of them each second; without `canary` they start at once at that rate. Results of deleted runs that lie
        in storage are deleted with them. Raises `NotFoundError` for a selection of somebody else, and for one that was
        not begun within 15 minutes.
        """
        token = selection.id if isinstance(selection, Selection) else selection
        return await bulk.act(self._platform, token, self._actor, self._reason, rate=rate, canary=canary, within=within)

    async def _known(self, run: Named) -> Mapping[str, Any]:
        row = await self._platform.history.run(_id(run))
        if row is None:
            raise _no_run(run)
        return row

    async def _fitting(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as JSON keeps them, if they fit the task."""
        task = await self._platform.catalogue.task(name)
        if task is None:
            message = (
                f"no service offers {name} any more, so other arguments cannot be checked; replay without, or start it"
            )
            raise UnknownTaskError(message)
        kept: dict[str, Any] = orjson.loads(json_args(dict(args)))
        if faults := faults_of(kept, task["schema"], "/args"):
            raise UnfitArgumentsError(name, faults)
        return kept


def get_operator(platform: Platform | None = None, *, by: str | None = None, reason: str | None = None) -> Operator:
    """An operator of a platform: of the one that this process is connected to, where none is named.

    The audit trail says that `by` did what it does (unset is the account of this process), why, and from which process.
    Raises `NotConnectedError` outside `async with carillon.connect(...)` and outside a service. Where a process has
    several platforms open, it is the one that was opened last.
    """
    if platform is None and not open_platforms:
        message = "there is nothing to steer; enter `async with carillon.connect():` first, or run inside a service"
        raise NotConnectedError(message)
    opened = platform or open_platforms[-1]
    return Operator(opened, Actor.process(opened.name, by or account()), reason)


def _name_of(domain: str | None, task: str | None, run: Named | None) -> str:
    """The domain or task that is named, or nothing where it is a run; raises `InvalidArgumentsError`."""
    if sum(name is not None for name in (domain, task, run)) != 1:
        raise InvalidArgumentsError("name a domain, a task or a run, and one of them alone")
    for name, is_task in ((domain, False), (task, True)):
        # A task's name has its domain before a dot, so that neither is taken for the other.
        if name is not None and (("." in name) != is_task or "\0" in name):
            raise InvalidArgumentsError(unknown_name(name))
    return domain or task or ""


def _id(run: Named) -> UUID:
    try:
        return run if isinstance(run, UUID) else UUID(run)
    except ValueError:
        raise _no_run(run) from None


def _state_of(run: Named, steered: Steered) -> State:
    if steered.state is None:
        raise _no_run(run)
    return State(steered.state)


def _no_run(run: Named) -> NotFoundError:
    return NotFoundError(
        f"no run has the id {str(run)[:100]!r}; it was deleted, or ended longer ago than runs are kept"
    )
