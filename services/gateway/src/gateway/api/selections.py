"""Acting on many runs: a preview first, then an act upon exactly what it showed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import post

from carillon.bulk import select
from carillon.errors import InvalidArgumentsError
from carillon.ledger.selections import LEAST_RATE, MOST_RATE, RATE, VALID, Progress
from carillon.ledger.typed import typed_search
from carillon.operator import Operator
from carillon.platform import Platform
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of
from gateway.api.steer_views import ActView, SampleRun, SelectionView
from gateway.errors import Fault, invalid
from gateway.filters import FILTERS
from gateway.submissions import checked

#: How many runs of a replay start each second.
PER_SECOND: dict[str, Any] = {
    "description": "Of a replay: how many runs start each second.",
    "type": "number",
    "minimum": LEAST_RATE,
    "maximum": MOST_RATE,
    "default": RATE,
}
CANARY: dict[str, Any] = {
    "description": "Of a replay: whether one run goes ahead; the others start when it has completed, and are cancelled "
    "when it has not.",
    "type": "boolean",
    "default": True,
}
#: The body of `POST /api/v1/selections`.
SELECT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"description": "What is to be done to the runs.", "enum": ["cancel", "replay", "settle", "delete"]},
        "filters": {
            "description": "Which runs: the filters of `GET /api/v1/runs`, at least one of them.",
            "type": "object",
            "properties": FILTERS,
            "minProperties": 1,
            "additionalProperties": False,
        },
    },
    "required": ["action", "filters"],
    "additionalProperties": False,
}
#: The body of `POST /api/v1/selections/{token}/act`, which may be empty.
ACT: dict[str, Any] = {**REASON, "properties": {"rate": PER_SECOND, "canary": CANARY, "reason": WHY}}


@post("/api/v1/selections", status_code=201, tags=["Steering"])
async def select_runs(request: Asked, platform: Platform, bodies: Bodies) -> SelectionView:
    """Choose runs and see how many, and some of them. Nothing is done to them yet.

    What could not be acted upon is left out: only what has not ended is cancelled, only what ended is deleted, and only
    what failed, was cancelled or is partial is replayed, unless it was and that run lives or went well. The token is
    good for 15 minutes, with the key that made it.
    """
    body = checked(await bodies.json(request), SELECT)
    made_at = datetime.now(UTC)
    try:
        search = typed_search(body["filters"])
        selection = await select(platform, body["action"], search, body["filters"], operator_of(request))
    except InvalidArgumentsError as error:
        raise invalid(Fault("/filters", str(error))) from None
    return SelectionView(
        token=selection.id,
        action=selection.action,
        count=selection.count,
        sample=[SampleRun.of(row) for row in selection.sample],
        expires_at=made_at + VALID,
    )


@post("/api/v1/selections/{token:str}/act", status_code=200, tags=["Steering"])
async def act_on_selection(request: Asked, token: str, platform: Platform, bodies: Bodies) -> ActView:
    """Act upon the next runs of a selection: 500 of them, or 100 of a replay.

    Send it again until nothing remains; it goes on where it stopped.
    """
    wishes = await bodies.wishes(request, ACT)
    operator = Operator(platform, operator_of(request), wishes.get("reason"))
    return act_view(await operator.act(token, **pace(wishes), within=timedelta(0)))


def pace(wishes: Mapping[str, Any]) -> dict[str, Any]:
    """How a replay starts, of a body that was checked."""
    return {name: wishes[name] for name in ("rate", "canary") if name in wishes}


def act_view(progress: Progress) -> ActView:
    """How far an act is."""
    return ActView.of(progress._asdict(), count=progress.selected)
