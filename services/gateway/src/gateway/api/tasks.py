"""The catalogue of tasks, and submitting runs of them."""

from __future__ import annotations

from litestar import Response, get, post

from carillon.platform import Platform
from gateway.api.intake import Intake
from gateway.api.requests import Asked
from gateway.api.views import Accepted, AcceptedBatch, TaskList, task_view
from gateway.submissions import KICK, SUBMIT


@get("/api/v1/tasks", tags=["Tasks"])
async def list_tasks(platform: Platform) -> TaskList:
    """Every task: what it does, what it takes, hears and says, and what limits it."""
    limits = {row["name"]: row["concurrency"] for row in await platform.catalogue.domains()}
    return TaskList(tasks=[task_view(row, limits) for row in await platform.catalogue.tasks()])


@post("/api/v1/tasks", status_code=202, tags=["Tasks"])
async def submit_task(request: Asked, intake: Intake) -> Response[Accepted]:
    """Submit one run of any task. It is durable when the answer is 202."""
    body = await intake.body(request, SUBMIT)
    task = await intake.named(body["task"])
    return _located(await intake.submit(request, task, body.get("args", {}), "/args", body))


@post("/api/v1/tasks/batch", status_code=202, tags=["Tasks"])
async def submit_batch(request: Asked, intake: Intake) -> AcceptedBatch:
    """Submit up to 1,000 runs: all of them, durable when the answer is 202, or none when one does not fit.

    An `Idempotency-Key` holds for the batch as it was sent: each run without a key of its own is known by the batch's
    key and its place.
    """
    return AcceptedBatch(tasks=await intake.submit_batch(request))


@post("/api/v1/tasks/{domain:str}/kick", status_code=202, tags=["Tasks"])
async def kick_task(request: Asked, domain: str, intake: Intake) -> Response[Accepted]:
    """Submit one run of a domain's task; of its default task, if none is named."""
    body = await intake.body(request, KICK)
    task = await intake.of_domain(domain, body.get("task"))
    return _located(await intake.submit(request, task, body.get("data", {}), "/data", body))


def _located(accepted: Accepted) -> Response[Accepted]:
    return Response(accepted, headers={"Location": accepted.status_url})
