"""What is told of workflows: their steps, their graph, and what they ask people."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from carillon.ledger.graph import Box
from carillon.ledger.history import SeenWorkflow
from carillon.ledger.steps import SeenStep
from gateway.api.run_views import RunSummary, run_summary
from gateway.api.views import Row, View


class StepErrorView(View, frozen=True, kw_only=True):
    """Why a step failed, in short; its run has all of it."""

    type: str | None
    message: str | None


class StepView(View, frozen=True, kw_only=True):
    """A step of a workflow."""

    #: Counted from 1, in the order in which the code asked.
    seq: int
    #: task, sleep, event, approval or repair.
    kind: str
    #: The task, the type of the event, or what is to be decided.
    name: str
    #: Of a task that of its run (`forgotten` where that is not kept); else waiting, completed, expired or cancelled.
    state: str
    #: Of a task.
    run_id: UUID | None
    asked_at: datetime
    #: When its last attempt began.
    started_at: datetime | None
    ended_at: datetime | None
    #: How long its last attempt took, or it was waited for.
    seconds: float | None
    #: Of a task: how many began.
    attempts: int | None
    error: StepErrorView | None
    #: Null too where it is larger than 2 KiB; then `result_bytes` says how large, and `result_url` where it is read.
    result: Any
    result_bytes: int | None
    result_url: str | None
    #: The event that came.
    event_id: UUID | None
    #: When a sleep is over, or the wait for an event or a decision.
    due_at: datetime | None
    #: Of an event: the values that its fields have to have.
    match: dict[str, Any] | None
    #: In a sentence without its end; null where it has ended.
    waits_for: str | None
    #: The steps of whose ends the code knew when it asked. Of steps that were asked for together the first on the page
    #: has them, and the others name it as `beside`.
    after: list[int]
    beside: int | None


class CodeChangeView(View, frozen=True, kw_only=True):
    """From which step on a workflow went on in other code."""

    code: str
    step: int


class WorkflowDetails(View, frozen=True, kw_only=True):
    """A workflow, and one page of its steps, in the order in which the code asked for them."""

    run: RunSummary
    #: The version that it began with, and a digest of its code; null before it first waited.
    version: int | None
    code: str | None
    code_changes: list[CodeChangeView]
    #: In a sentence without its end; null while it executes, and where it has ended.
    waits_for: str | None
    #: How many of all its steps are in which state.
    counts: dict[str, int]
    steps: list[StepView]
    next_cursor: str | None


class BoxView(View, frozen=True, kw_only=True):
    """One step, or many of one kind and name; of a large graph also the steps in between (`rest`)."""

    #: The number of its first step, by which others name it, and of its last one.
    first: int
    last: int
    kind: str
    name: str
    #: The step, where it is one.
    step: StepView | None
    counts: dict[str, int]
    #: How many layers of boxes are before it.
    layer: int
    #: The boxes that it came after.
    after: list[int]


class WorkflowGraph(View, frozen=True, kw_only=True):
    """The graph of a workflow, of at most 200 boxes."""

    workflow_id: UUID
    waits_for: str | None
    version: int | None
    code_changes: list[CodeChangeView]
    counts: dict[str, int]
    boxes: list[BoxView]


class WorkflowPage(View, frozen=True, kw_only=True):
    """One page of workflows, newest first. `next_cursor` is null on the last one."""

    workflows: list[RunSummary]
    next_cursor: str | None


class OpenDecision(View, frozen=True, kw_only=True):
    """What a workflow asks people."""

    workflow_id: UUID
    task: str
    domain: str
    #: The state of the workflow.
    state: str
    labels: dict[str, str]
    seq: int
    #: `approval`, or `repair`: whether what failed for good is tried again.
    kind: str
    question: str
    asked_at: datetime
    #: When the workflow waits no longer.
    due_at: datetime | None


class DecisionPage(View, frozen=True, kw_only=True):
    """One page of what workflows ask people, those first that wait longest."""

    approvals: list[OpenDecision]
    next_cursor: str | None


class DecidedStep(View, frozen=True, kw_only=True):
    """A step that was decided about."""

    workflow_id: UUID
    seq: int
    approved: bool


class ForkedWorkflow(View, frozen=True, kw_only=True):
    """The run that goes on from a step of another. `created` is false when an earlier request made it."""

    run_id: UUID
    fork_of: UUID
    task: str
    created: bool
    status_url: str


def step_view(step: SeenStep) -> StepView:
    """A step; it says where its result is when that is large."""
    is_elsewhere = step.result_bytes is not None and step.run_id is not None
    return StepView(
        **{name: getattr(step, name) for name in StepView.__struct_fields__ if name in _SAME},
        error=None if step.error is None else StepErrorView.of(step.error),
        match=None if step.match is None else dict(step.match),
        after=list(step.after),
        result_url=f"/api/v1/runs/{step.run_id}/result" if is_elsewhere else None,
    )


_SAME = frozenset(StepView.__struct_fields__) - {"error", "match", "after", "result_url"}


def workflow_details(seen: SeenWorkflow, next_cursor: str | None) -> WorkflowDetails:
    """A workflow with the steps of one page."""
    return WorkflowDetails(
        run=run_summary({**seen.run, "error": (seen.run["error"] or {}).get("message")}),
        version=seen.version,
        code=(seen.run["origin"] or {}).get("code"),
        code_changes=_changes(seen),
        waits_for=seen.waits_for,
        counts=dict(seen.counts),
        steps=[step_view(step) for step in seen.steps],
        next_cursor=next_cursor,
    )


def workflow_graph(seen: SeenWorkflow, boxes: list[Box]) -> WorkflowGraph:
    """The graph of a workflow."""
    return WorkflowGraph(
        workflow_id=seen.run["id"],
        waits_for=seen.waits_for,
        version=seen.version,
        code_changes=_changes(seen),
        counts=dict(seen.counts),
        boxes=[_box_view(box) for box in boxes],
    )


def _changes(seen: SeenWorkflow) -> list[CodeChangeView]:
    return [CodeChangeView.of(change) for change in seen.code_changes]


def _box_view(box: Box) -> BoxView:
    return BoxView(
        first=box.first,
        last=box.last,
        kind=box.kind,
        name=box.name,
        step=None if box.step is None else step_view(box.step),
        counts=dict(box.counts),
        layer=box.layer,
        after=list(box.after),
    )


def open_decision(row: Row) -> OpenDecision:
    """What a workflow asks people."""
    return OpenDecision.of(row, question=row["name"], asked_at=row["at"])
