"""The catalogue of tasks, and submitting runs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar import Response, get, post

from carillon.platform import Platform
from carillon.telemetry.metrics import Metrics
from carillon.telemetry.traces import current_traceparent
from gateway.api.requests import Asked, Bodies, actor_of
from gateway.api.views import Accepted, TaskList, TaskView
from gateway.bodies import shown
from gateway.errors import NOT_FOUND, Fault, ProblemError, invalid
from gateway.submissions import KICK, SUBMIT, check_arguments, checked, idempotency_key, new_run

Row = Mapping[str, Any]
_MOST_NAMES = 20


@get("/api/v1/tasks", tags=["Tasks"])
async def list_tasks(platform: Platform) -> TaskList:
    """Every task: what it does, what it takes, hears and says."""
    return TaskList(tasks=[TaskView.of(row) for row in await platform.catalogue.tasks()])


@post("/api/v1/tasks", status_code=202, tags=["Tasks"])
async def submit_task(request: Asked, platform: Platform, metrics: Metrics, bodies: Bodies) -> Response[Accepted]:
    """Submit one run of any task. It is durable when the answer is 202."""
    body = checked(await bodies.json(request), SUBMIT)
    task = await platform.catalogue.task(body["task"])
    if task is None:
        known = _names(await platform.catalogue.tasks())
        raise invalid(Fault("/task", f"is not a task; there are {known}"))
    check_arguments(body.get("args", {}), _callable(task), "/args")
    return await _submit(request, platform, metrics, task, body.get("args", {}), body)


@post("/api/v1/tasks/{domain:str}/kick", status_code=202, tags=["Tasks"])
async def kick_task(
    request: Asked, domain: str, platform: Platform, metrics: Metrics, bodies: Bodies
) -> Response[Accepted]:
    """Submit one run of a domain's task; of its default task, if none is named."""
    body = checked(await bodies.json(request), KICK)
    task = await _chosen(platform, domain, body.get("task"))
    check_arguments(body.get("data", {}), _callable(task), "/data")
    return await _submit(request, platform, metrics, task, body.get("data", {}), body)


async def _chosen(platform: Platform, domain: str, named: str | None) -> Row:
    tasks = [] if "\0" in domain else await platform.catalogue.tasks_of(domain)
    if not tasks:
        domains = ", ".join(row["name"] for row in await platform.catalogue.domains())
        message = f"no domain of this name has tasks; there are {domains or 'none yet: start a service'}"
        raise ProblemError(NOT_FOUND, message)
    if named is not None:
        full = named if "." in named else f"{domain}.{named}"
        found = next((task for task in tasks if task["name"] == full), None)
        if found is None:
            raise invalid(Fault("/task", f"is not a task of {shown(domain)}; there are {_names(tasks)}"))
        return found
    default = [task for task in tasks if task["is_default"]]
    usable = default or [task for task in tasks if task["hears"] is None]
    if len(usable) != 1:
        raise invalid(Fault("/task", f"must be named, as {shown(domain)} has no default; there are {_names(tasks)}"))
    return usable[0]


def _callable(task: Row) -> Row:
    if task["hears"] is not None:
        detail = f"answers events; post an event of type {task['hears']} to /api/v1/events instead"
        raise invalid(Fault("/task", detail))
    return task


def _names(tasks: list[Row]) -> str:
    names = [task["name"] for task in tasks if task["hears"] is None]
    more = "" if len(names) <= _MOST_NAMES else f" and {len(names) - _MOST_NAMES} more"
    return f"{', '.join(names[:_MOST_NAMES]) or 'none'}{more}"


async def _submit(
    request: Asked, platform: Platform, metrics: Metrics, task: Row, arguments: Mapping[str, Any], body: Row
) -> Response[Accepted]:
    key = idempotency_key(request.headers.getall("idempotency-key", []))
    run = new_run(task, arguments, body, actor=actor_of(request), key=key, traceparent=current_traceparent())
    submitted = await platform.submit(run)
    if submitted.created:
        metrics.submitted.labels(run.task).inc()
    url = f"/api/v1/tasks/{submitted.id}/status"
    accepted = Accepted(task_id=submitted.id, id=submitted.id, task=run.task, created=submitted.created, status_url=url)
    return Response(accepted, headers={"Location": url})
