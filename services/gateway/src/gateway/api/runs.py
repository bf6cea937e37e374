"""Single runs, and searching their history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
from litestar import Response, get

from carillon.callbacks import origin_of
from carillon.errors import TransientError
from carillon.ledger.history import Cursor
from carillon.ledger.records import State
from carillon.platform import Platform
from carillon.stored_results import ResultGoneError, stored_in
from gateway.api.requests import Asked, query, run_id
from gateway.api.run_views import (
    AfterView,
    AttemptView,
    NeedView,
    RunDetails,
    RunPage,
    RunStatus,
    SaidEvent,
    StoredResultView,
    progress_view,
    run_summary,
)
from gateway.api.views import EventView, HoldView
from gateway.cursors import Cursors
from gateway.errors import NOT_FOUND, UNAVAILABLE, ProblemError
from gateway.filters import FILTERS, PAGED, search_of

#: A run says a handful of events; of one that says more, the first are shown with their answers.
MOST_SAID = 20
#: The query of `GET /api/v1/runs`.
SEARCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        **FILTERS,
        **PAGED,
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
    rows = await platform.history.search(replace(search_of(filters), after=after, limit=limit + 1))
    page, more = rows[:limit], len(rows) > limit
    last = Cursor(page[-1]["created_at"], page[-1]["id"]) if more else None
    return RunPage(
        runs=[run_summary(row) for row in page], next_cursor=None if last is None else cursors.write(last, filters)
    )


@get("/api/v1/tasks/{id:str}/status", tags=["Runs"])
async def run_status(id: str, platform: Platform) -> RunStatus:  # noqa: A002 - its name in the address
    """How far a run is."""
    row = await known_run(platform, run_id(id))
    error = (row["error"] or {}).get("message")
    reported = progress_view(row["progress"])
    return RunStatus.of(row, task_id=row["id"], status=row["state"], progress=reported, error=error and error[:200])


@get(["/api/v1/tasks/{id:str}", "/api/v1/runs/{id:str}"], tags=["Runs"])
async def run_details(id: str, platform: Platform) -> RunDetails:  # noqa: A002 - its name in the address
    """All that is known of a run: arguments, result, attempts, what caused it and what it caused."""
    row = await known_run(platform, run_id(id))
    history, lives = platform.history, row["finished_at"] is None
    attempts = await history.attempts(row["id"])
    workers = await history.worker_names({one["worker_id"] for one in (row, *attempts)} - {None})
    holds = await platform.ledger.steering.holds() if lives else []
    cause = None if row["event_id"] is None else await history.event(row["event_id"])
    said = [
        SaidEvent(
            event=EventView.of(event),
            data=event["data"],
            answers=[run_summary(answer) for answer in await history.answers_to(event["id"])],
        )
        for event in (await history.said_by(row["id"]))[:MOST_SAID]
    ]
    stored = stored_in(row["id"], row["result"])
    url = f"/api/v1/runs/{row['id']}/result"
    return RunDetails.of(
        row,
        result=None if stored else row["result"],
        stored_result=stored and StoredResultView(bytes=stored.bytes, url=url),
        task_id=row["id"],
        is_workflow=row["wake_at"] is not None,
        status=row["state"],
        worker=workers.get(row["worker_id"]),
        worker_heard_at=await history.heard_of(row["worker_id"]) if row["state"] == State.RUNNING else None,
        callback_origin=None if row["callback_url"] is None else origin_of(row["callback_url"]),
        after=None if row["after"] is None else AfterView.of(row["after"]),
        attempts=[AttemptView.of(attempt, worker=workers.get(attempt["worker_id"])) for attempt in attempts],
        awaited_limit=await history.awaited_limit(row["id"]) if row["gated"] else None,
        holds=[HoldView.of(hold._asdict()) for hold in holds if hold.name in (row["domain"], row["task"])],
        needs=[NeedView.of(need) for need in await history.needs_of(row["id"])],
        children=[run_summary(child) for child in await history.children(row["id"])],
        replays=[run_summary(replay) for replay in await history.replays_of(row["id"])],
        progress=progress_view(row["progress"]),
        partial=(row["progress"] or {}).get("partial"),
        cause=None if cause is None else EventView.of(cause),
        said=said,
    )


@get("/api/v1/runs/{id:str}/result", tags=["Runs"])
async def run_result(id: str, platform: Platform) -> Response[bytes]:  # noqa: A002 - its name in the address
    """What a run returned, as JSON, also when it is too large to be shown with the run."""
    row = await known_run(platform, run_id(id))
    if row["state"] not in {State.COMPLETED, State.PARTIAL}:
        message = f"this run is {row['state']}, and has no result"
        raise ProblemError(NOT_FOUND, message)
    stored = stored_in(row["id"], row["result"])
    try:
        content = orjson.dumps(row["result"]) if stored is None else await platform.stored_results.json(stored)
    except ResultGoneError as error:
        raise ProblemError(NOT_FOUND, str(error)) from None
    except TransientError as error:
        raise ProblemError(UNAVAILABLE, str(error), headers={"Retry-After": "5"}) from None
    return Response(content, media_type="application/json")


async def known_run(platform: Platform, id: UUID) -> Any:  # noqa: A002 - what it is
    """The row of a run; raises `ProblemError` where there is none."""
    row = await platform.history.run(id)
    if row is None:
        message = (
            "no run has this id; it was deleted, or ended longer ago than runs are kept. A submit with its idempotency "
            "key still answers with this id and runs nothing; use another key to run it again"
        )
        raise ProblemError(NOT_FOUND, message)
    return row
