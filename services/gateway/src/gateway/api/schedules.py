"""Schedules: what fires when, what fired, pausing and resuming."""

from __future__ import annotations

from typing import Any

from litestar import get, post

from carillon.platform import Platform
from gateway.api.requests import Asked, Bodies, operator_of, query
from gateway.api.schedule_views import FireList, FireView, ScheduleList, ScheduleView, schedule_view
from gateway.api.views import Row
from gateway.errors import NOT_FOUND, ProblemError

#: The query of the lists that have no pages.
NEWEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "limit": {
            "description": "How many are listed, newest first.",
            "type": "integer",
            "minimum": 1,
            "maximum": 200,
            "default": 50,
        }
    },
    "additionalProperties": False,
}


@get("/api/v1/tasks/scheduled", tags=["Schedules"])
async def list_schedules(platform: Platform) -> ScheduleList:
    """All schedules with their next fire."""
    return ScheduleList(schedules=[schedule_view(row) for row in await platform.schedules.all()])


@get("/api/v1/tasks/scheduled/{name:str}/fires", tags=["Schedules"])
async def list_fires(request: Asked, name: str, platform: Platform) -> FireList:
    """The newest fires of a schedule, and why some did not happen."""
    limit = query(request, NEWEST).get("limit", 50)
    await _schedule(platform, name)
    rows = await platform.schedules.fires(name, limit)
    return FireList(schedule=name, fires=[FireView.of(row) for row in rows])


@post("/api/v1/tasks/scheduled/{name:str}/pause", status_code=200, tags=["Schedules"])
async def pause_schedule(request: Asked, name: str, platform: Platform, bodies: Bodies) -> ScheduleView:
    """Let a schedule not fire until it is resumed; pausing twice is pausing once."""
    reason = await bodies.reason(request)
    await _schedule(platform, name)
    await platform.schedules.pause(name, operator_of(request), reason)
    return schedule_view(await _schedule(platform, name))


@post("/api/v1/tasks/scheduled/{name:str}/resume", status_code=200, tags=["Schedules"])
async def resume_schedule(request: Asked, name: str, platform: Platform, bodies: Bodies) -> ScheduleView:
    """Let a schedule fire again, from now on."""
    reason = await bodies.reason(request)
    await _schedule(platform, name)
    await platform.schedules.resume(name, operator_of(request), reason)
    return schedule_view(await _schedule(platform, name))


async def _schedule(platform: Platform, name: str) -> Row:
    row = None if "\0" in name else await platform.schedules.get(name)
    if row is None:
        message = "no schedule has this name; GET /api/v1/tasks/scheduled lists them"
        raise ProblemError(NOT_FOUND, message)
    return row
