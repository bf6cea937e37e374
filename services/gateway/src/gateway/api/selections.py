"""Acting on many runs: a preview first, then an act upon exactly what it showed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from litestar import post

from carillon.errors import InvalidArgumentsError
from carillon.ledger.audit import Actor
from carillon.ledger.search import condition
from carillon.ledger.selections import VALID, Progress
from carillon.ledger.typed import typed_search
from carillon.platform import Platform
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of
from gateway.api.steer_views import ActView, SampleRun, SelectionView
from gateway.errors import NOT_FOUND, Fault, ProblemError, invalid
from gateway.filters import FILTERS
from gateway.submissions import checked

#: How many runs of a replay start each second.
RATE: dict[str, Any] = {
    "description": "Of a replay: how many runs start each second.",
    "type": "number",
    "minimum": 0.01,
    "maximum": 10_000,
    "default": 50,
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
ACT: dict[str, Any] = {**REASON, "properties": {"rate": RATE, "canary": CANARY, "reason": WHY}}


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
        where, values = condition(typed_search(body["filters"]))
        selection = await platform.ledger.selections.make(
            body["action"], where, values, body["filters"], operator_of(request)
        )
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
    return act_view(selection := _token(token), await act(platform, selection, operator_of(request), wishes))


async def act(platform: Platform, selection: UUID, actor: Actor, wishes: Mapping[str, Any]) -> Progress:
    """Act upon the next runs of a selection, as a body that was checked says; raises `ProblemError`."""
    try:
        return await platform.ledger.selections.act(
            selection,
            actor,
            wishes.get("reason"),
            per_second=wishes.get("rate", RATE["default"]),
            canary=wishes.get("canary", True),
        )
    except InvalidArgumentsError as error:
        raise ProblemError(NOT_FOUND, str(error)) from None


def act_view(selection: UUID, progress: Progress) -> ActView:
    """How far an act is."""
    return ActView.of(progress._asdict(), selection=selection, count=progress.selected)


def _token(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        message = "no such selection; POST /api/v1/selections makes one"
        raise ProblemError(NOT_FOUND, message) from None
