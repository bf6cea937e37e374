"""Single runs, and searching their history."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import get

from carillon.ledger.history import Cursor, Search
from carillon.ledger.tables import STATES
from carillon.platform import Platform
from gateway.api.requests import Asked, query, run_id
from gateway.api.views import (
    AttemptView,
    EventView,
    RunDetails,
    RunPage,
    RunStatus,
    SaidEvent,
    run_summary,
)
from gateway.cursors import Cursors
from gateway.errors import NOT_FOUND, Fault, ProblemError, invalid
from gateway.shapes import moment

#: A run says a handful of events; of one that says more, the first are shown with their answers.
MOST_SAID = 20
#: A value that is compared as a whole.
WORD = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[^\x00-\x1f\x7f]*$"}

#: The query of `GET /api/v1/runs`.
SEARCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "state": {
            "description": "One of these states; may be repeated.",
            "type": "array",
            "maxItems": len(STATES),
            "items": {"enum": list(STATES)},
        },
        "task": {**WORD, "description": "The whole name of a task."},
        "domain": {**WORD, "description": "The name of a domain."},
        "label": {
            "description": "A label as `name:value`; may be repeated.",
            "type": "array",
            "maxItems": 20,
            "items": {**WORD, "pattern": r"^[a-z][a-z0-9_.-]*:[^\x00-\x1f\x7f]*$"},
        },
        "since": {"description": "Accepted at or after this moment.", "type": "string", "format": "date-time"},
        "until": {"description": "Accepted before this moment.", "type": "string", "format": "date-time"},
        "limit": {
            "description": "How many runs a page has at most.",
            "type": "integer",
            "minimum": 1,
            "maximum": 200,
            "default": 50,
        },
        "cursor": {
            "description": "`next_cursor` of the page before, with the same filters.",
            "type": "string",
            "minLength": 1,
            "maxLength": 100,
        },
    },
    "additionalProperties": False,
}


@get(["/api/v1/runs", "/api/v1/tasks/history"], tags=["Runs"])
async def search_runs(request: Asked, platform: Platform, cursors: Cursors) -> RunPage:
    """Search the history of runs, newest first, page by page."""
    asked = query(request, SEARCH)
    limit = asked.get("limit", 50)
    filters = {name: value for name, value in asked.items() if name not in {"cursor", "limit"}}
    after = cursors.read(asked["cursor"], filters) if "cursor" in asked else None
    rows = await platform.history.search(_search(filters, after, limit + 1))
    page, more = rows[:limit], len(rows) > limit
    last = Cursor(page[-1]["created_at"], page[-1]["id"]) if more else None
    return RunPage(
        runs=[run_summary(row) for row in page], next_cursor=None if last is None else cursors.write(last, filters)
    )


@get("/api/v1/tasks/{id:str}/status", tags=["Runs"])
async def run_status(id: str, platform: Platform) -> RunStatus:  # noqa: A002 - its name in the address
    """How far a run is."""
    row = await _run(platform, run_id(id))
    error = (row["error"] or {}).get("message")
    return RunStatus.of(row, task_id=row["id"], status=row["state"], error=error and error[:200])


@get(["/api/v1/tasks/{id:str}", "/api/v1/runs/{id:str}"], tags=["Runs"])
async def run_details(id: str, platform: Platform) -> RunDetails:  # noqa: A002 - its name in the address
    """All that is known of a run: arguments, result, attempts, what caused it and what it caused."""
    row = await _run(platform, run_id(id))
    history = platform.history
    cause = None if row["event_id"] is None else await history.event(row["event_id"])
    said = [
        SaidEvent(
            event=EventView.of(event),
            data=event["data"],
            answers=[run_summary(answer) for answer in await history.answers_to(event["id"])],
        )
        for event in (await history.said_by(row["id"]))[:MOST_SAID]
    ]
    return RunDetails.of(
        row,
        task_id=row["id"],
        status=row["state"],
        attempts=[AttemptView.of(attempt) for attempt in await history.attempts(row["id"])],
        cause=None if cause is None else EventView.of(cause),
        said=said,
    )


async def _run(platform: Platform, id: UUID) -> Any:  # noqa: A002 - what it is
    row = await platform.history.run(id)
    if row is None:
        message = "no run has this id; it may have ended longer ago than runs are kept"
        raise ProblemError(NOT_FOUND, message)
    return row


def _search(filters: dict[str, Any], after: Cursor | None, limit: int) -> Search:
    since, until = _moment(filters, "since"), _moment(filters, "until")
    if since is not None and until is not None and since >= until:
        raise invalid(Fault("until", "must be later than since"))
    return Search(
        states=filters.get("state", ()),
        domain=filters.get("domain"),
        task=filters.get("task"),
        since=since,
        until=until,
        labels=dict(label.split(":", 1) for label in filters.get("label", ())),
        after=after,
        limit=limit,
    )


def _moment(filters: dict[str, Any], name: str) -> datetime | None:
    return moment(filters[name]) if name in filters else None
