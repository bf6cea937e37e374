"""Workflows: one with its steps and its graph, all of them, and what they ask people."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

from litestar import Response, get, post

from carillon.errors import InvalidArgumentsError
from carillon.ledger.history import Cursor, SeenWorkflow, StepPlace
from carillon.operator import Operator
from carillon.platform import Platform
from carillon.workflows.records import MOST_STEPS
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of, query, run_id
from gateway.api.run_views import run_summary
from gateway.api.runs import known_run
from gateway.api.workflow_views import (
    DecidedStep,
    DecisionPage,
    ForkedWorkflow,
    WorkflowDetails,
    WorkflowGraph,
    WorkflowPage,
    open_decision,
    workflow_details,
    workflow_graph,
)
from gateway.cursors import Cursors
from gateway.errors import NOT_FOUND, Fault, ProblemError, invalid
from gateway.filters import FILTERS, PAGED, search_of
from gateway.submissions import checked

#: The query of `GET /api/v1/workflows`.
WORKFLOWS: dict[str, Any] = {
    "type": "object",
    "properties": {"state": FILTERS["state"], "task": FILTERS["task"], **PAGED},
    "additionalProperties": False,
}
#: The query of `GET /api/v1/workflows/{id}`.
STEPS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "limit": {
            **PAGED["limit"],
            "description": "How many steps a page has at most.",
            "maximum": 500,
            "default": 500,
        },
        "cursor": {**PAGED["cursor"], "description": "`next_cursor` of the page before."},
    },
    "additionalProperties": False,
}
#: The query of `GET /api/v1/approvals`.
APPROVALS: dict[str, Any] = {"type": "object", "properties": PAGED, "additionalProperties": False}
#: The body of `POST /api/v1/workflows/{id}/steps/{seq}/decision`.
DECISION: dict[str, Any] = {
    **REASON,
    "properties": {
        "approve": {
            "description": "Whether it is approved; of a repair, whether to try again or not, as it was done by hand.",
            "type": "boolean",
        },
        "reason": {**WHY, "description": "Why; the workflow is told, and the audit trail keeps it."},
    },
    "required": ["approve"],
}
#: The body of `POST /api/v1/workflows/{id}/fork`, which may be empty.
FORK: dict[str, Any] = {
    **REASON,
    "properties": {
        "step": {
            "description": "The first step that is done again; if not said, the first one that did not go well.",
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": MOST_STEPS,
        },
        "reason": WHY,
    },
}
#: What PostgreSQL's integer can hold.
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@get("/api/v1/workflows", tags=["Workflows"])
async def list_workflows(request: Asked, platform: Platform, cursors: Cursors) -> WorkflowPage:
    """The runs that are workflows, newest first, page by page."""
    asked = query(request, WORKFLOWS)
    limit = asked.get("limit", 50)
    filters = {name: value for name, value in asked.items() if name not in {"cursor", "limit"}}
    after = cursors.read(asked["cursor"], filters) if "cursor" in asked else None
    rows = await platform.history.workflows(replace(search_of(filters), after=after, limit=limit + 1))
    page, more = rows[:limit], len(rows) > limit
    last = Cursor(page[-1]["created_at"], page[-1]["id"]) if more else None
    return WorkflowPage(
        workflows=[run_summary(row) for row in page],
        next_cursor=None if last is None else cursors.write(last, filters),
    )


@get("/api/v1/workflows/{id:str}", tags=["Workflows"])
async def show_workflow(request: Asked, id: str, platform: Platform, cursors: Cursors) -> WorkflowDetails:  # noqa: A002 - its name in the address
    """A workflow with its steps: how each ended or what it waits for, and what it came after.

    At most 500 steps, in the order in which the code asked for them; `counts` is of all.
    """
    asked, run = query(request, STEPS), run_id(id)
    of = {"workflow": str(run)}
    after = cursors.read_number(asked["cursor"], of) if "cursor" in asked else 0
    seen = await _known(platform, run, after=after, limit=asked.get("limit", 500))
    return workflow_details(seen, cursors.write_number(seen.steps[-1].seq, of) if seen.more else None)


@get("/api/v1/workflows/{id:str}/graph", tags=["Workflows"])
async def show_graph(id: str, platform: Platform) -> WorkflowGraph:  # noqa: A002 - as above
    """The steps of a workflow as boxes that came after each other, many of one kind in one box with counts."""
    seen = await _known(platform, run_id(id), limit=1)
    return workflow_graph(seen, await platform.history.graph(seen.run["id"]))


@get("/api/v1/approvals", tags=["Workflows"])
async def list_approvals(request: Asked, platform: Platform, cursors: Cursors) -> DecisionPage:
    """What workflows ask people, those first that wait longest: approvals, and repairs of what failed for good."""
    asked = query(request, APPROVALS)
    limit = asked.get("limit", 50)
    after = cursors.read_step(asked["cursor"]) if "cursor" in asked else None
    rows = await platform.history.decisions(after, limit + 1)
    page, more = rows[:limit], len(rows) > limit
    last = StepPlace(page[-1]["at"], page[-1]["workflow_id"], page[-1]["seq"]) if more else None
    return DecisionPage(
        approvals=[open_decision(row) for row in page],
        next_cursor=None if last is None else cursors.write_step(last),
    )


@post("/api/v1/workflows/{id:str}/steps/{seq:str}/decision", status_code=200, tags=["Workflows"])
async def decide_step(request: Asked, id: str, seq: str, platform: Platform, bodies: Bodies) -> DecidedStep:  # noqa: A002 - as above
    """Approve or refuse what a workflow asks, once; it goes on with the answer, which names who decided and why."""
    body, run = checked(await bodies.json(request), DECISION), run_id(id)
    if not _NUMBER.fullmatch(seq):
        message = "no step has this number; steps are counted from 1"
        raise ProblemError(NOT_FOUND, message)
    operator = Operator(platform, operator_of(request), body.get("reason"))
    await operator.decide(run, int(seq), approve=body["approve"])
    return DecidedStep(workflow_id=run, seq=int(seq), approved=body["approve"])


@post("/api/v1/workflows/{id:str}/fork", status_code=202, tags=["Workflows"])
async def fork_workflow(request: Asked, id: str, platform: Platform, bodies: Bodies) -> Response[ForkedWorkflow]:  # noqa: A002 - as above
    """Run a workflow that has ended again from a step on, as a run of its own; what was before is not done again.

    It goes on in the code that there is now. Asking twice makes one: while a fork or a replay lives, or when it
    completed, it is the answer.
    """
    wishes, run = await bodies.wishes(request, FORK), run_id(id)
    original = await known_run(platform, run)
    try:
        made = await Operator(platform, operator_of(request), wishes.get("reason")).fork(run, wishes.get("step"))
    except InvalidArgumentsError as error:
        raise invalid(Fault("/step", str(error))) from None
    url = f"/api/v1/tasks/{made.id}/status"
    answer = ForkedWorkflow(run_id=made.id, fork_of=run, task=original["task"], created=made.created, status_url=url)
    return Response(answer, headers={"Location": url})


async def _known(platform: Platform, run: UUID, *, after: int = 0, limit: int) -> SeenWorkflow:
    seen = await platform.history.workflow(run, after=after, limit=limit)
    if seen is None:
        row = await known_run(platform, run)
        message = f"this run is no workflow, but one of the task {row['task']}; see /api/v1/runs/{run}"
        raise ProblemError(NOT_FOUND, message)
    return seen
