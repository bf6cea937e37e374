"""What needs a person: failed runs and unreadable messages, looked at and dealt with by the group."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from litestar import Response, get, post

from carillon.errors import PlatformUnavailableError
from carillon.ledger.audit import Actor
from carillon.ledger.dead_letters import OF_GROUP
from carillon.ledger.selections import Act, Progress
from carillon.platform import Platform
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of, query
from gateway.api.selections import ACT, act, act_view
from gateway.api.steer_views import (
    ActView,
    DeadLetterGroup,
    DeadLetterGroups,
    DeadMessage,
    DeadRun,
    Discarded,
    MessageGroupView,
    Redelivered,
    RunGroupView,
)
from gateway.api.views import Row
from gateway.errors import CONFLICT, NOT_FOUND, UNAVAILABLE, ProblemError
from gateway.filters import WORD

#: Of a message's body, in the list of a group.
MOST_SHOWN_BYTES = 4096
MOST_FINGERPRINT = 64
#: Of a group that is large, a request deals with as much as fits into this time, and says what remains.
ACT_SECONDS = 5.0

_LIMIT = {"type": "integer", "minimum": 1, "maximum": 100}
_TASK = {**WORD, "description": "Only the runs of this task; without it those of all tasks that failed in this way."}
#: The query of `GET /api/v1/dead-letters`.
GROUPS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "domain": {**WORD, "description": "The name of a domain."},
        "limit": {**_LIMIT, "description": "How many groups of each kind are listed at most.", "default": 50},
    },
    "additionalProperties": False,
}
#: The query of `GET /api/v1/dead-letters/{fingerprint}`.
MEMBERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "task": _TASK,
        "limit": {**_LIMIT, "description": "How many members are listed at most, newest first.", "default": 20},
    },
    "additionalProperties": False,
}
#: The bodies of what is done to a group; they may be empty.
REPLAY_GROUP: dict[str, Any] = {**ACT, "properties": {"task": _TASK, **ACT["properties"]}}
DISCARD: dict[str, Any] = {**REASON, "properties": {"task": _TASK, "reason": WHY}}
#: The body of `POST /api/v1/dead-letters/messages/{id}/redeliver`, which may be empty.
REDELIVER: dict[str, Any] = {
    **REASON,
    "properties": {
        "body": {"description": "A mended body in place of the one that could not be read.", "type": "string"},
        "reason": WHY,
    },
}


@get("/api/v1/dead-letters", tags=["Dead letters"])
async def list_dead_letters(request: Asked, platform: Platform) -> DeadLetterGroups:
    """Failed runs and unreadable messages, grouped by what went wrong, until somebody has dealt with them."""
    asked = query(request, GROUPS)
    letters, which = platform.ledger.dead_letters, (asked.get("domain"), asked.get("limit", 50))
    return DeadLetterGroups(
        runs=[RunGroupView.of(asdict(group), error=group.message) for group in await letters.runs(*which)],
        messages=[MessageGroupView.of(asdict(group), error=group.message) for group in await letters.messages(*which)],
    )


@get("/api/v1/dead-letters/{fingerprint:str}", tags=["Dead letters"])
async def list_group(request: Asked, fingerprint: str, platform: Platform) -> DeadLetterGroup:
    """The members of a group: failed runs with arguments and error, or messages with body and headers."""
    asked = query(request, MEMBERS)
    limit, name = asked.get("limit", 20), _fingerprint(fingerprint)
    runs = await platform.ledger.dead_letters.runs_of(name, asked.get("task"), limit)
    messages = await platform.ledger.dead_letters.of_group(name, limit)
    if not runs and not messages:
        raise _no_group()
    return DeadLetterGroup(
        fingerprint=name,
        runs=[DeadRun.of(dict(row)) for row in runs],
        messages=[_message(dict(row), MOST_SHOWN_BYTES) for row in messages],
    )


@get("/api/v1/dead-letters/messages/{id:str}", tags=["Dead letters"])
async def show_message(id: str, platform: Platform) -> DeadMessage:  # noqa: A002 - its name in the address
    """One message that could not be read, whole."""
    row = await platform.ledger.dead_letters.message(_message_id(id))
    if row is None:
        raise _no_message()
    return _message(dict(row))


@post("/api/v1/dead-letters/{fingerprint:str}/replay", status_code=202, tags=["Dead letters"])
async def replay_group(request: Asked, fingerprint: str, platform: Platform, bodies: Bodies) -> Response[ActView]:
    """Run the failed runs of a group again: one goes ahead, the others follow at a rate once it has completed.

    Runs that were replayed are no dead letters any more, unless their replay fails: then that is one.
    """
    wishes = await bodies.wishes(request, REPLAY_GROUP)
    selection, progress = await _on_group(platform, "replay", fingerprint, operator_of(request), wishes)
    if selection is None:
        raise _no_group()
    return Response(act_view(selection, progress), headers={"Location": f"/api/v1/selections/{selection}/act"})


@post("/api/v1/dead-letters/{fingerprint:str}/discard", status_code=200, tags=["Dead letters"])
async def discard_group(request: Asked, fingerprint: str, platform: Platform, bodies: Bodies) -> Discarded:
    """Be done with a group: its runs are settled and stay in the history, its messages are thrown away."""
    wishes, actor = await bodies.wishes(request, DISCARD), operator_of(request)
    thrown = 0
    if "task" not in wishes:
        thrown = await platform.ledger.dead_letters.discard(_fingerprint(fingerprint), actor, wishes.get("reason"))
    selection, progress = await _on_group(platform, "settle", fingerprint, actor, wishes)
    if selection is None and not thrown:
        raise _no_group()
    return Discarded(count=progress.done + thrown, remaining=progress.remaining)


@post("/api/v1/dead-letters/messages/{id:str}/redeliver", status_code=200, tags=["Dead letters"])
async def redeliver_message(request: Asked, id: str, platform: Platform, bodies: Bodies) -> Redelivered:  # noqa: A002 - as above
    """Hand a message to its queue again, perhaps with a mended body."""
    wishes, letter = await bodies.wishes(request, REDELIVER), _message_id(id)
    letters, body = platform.ledger.dead_letters, wishes.get("body")
    found = await letters.message(letter)
    if found is None:
        raise _no_message()
    mended = None if body is None else body.encode()
    try:
        taken = await letters.redeliver(
            letter, platform.transport, operator_of(request), wishes.get("reason"), body=mended
        )
    except PlatformUnavailableError as error:
        raise ProblemError(CONFLICT if platform.transport.is_ledger else UNAVAILABLE, str(error)) from None
    if not taken:
        raise _no_message()
    return Redelivered(id=letter, queue=found["queue"])


async def _on_group(
    platform: Platform, action: Act, fingerprint: str, actor: Actor, wishes: Mapping[str, Any]
) -> tuple[UUID | None, Progress]:
    """Act upon the failed runs of a group for as long as a request may take; no selection when there are none."""
    name, task = _fingerprint(fingerprint), wishes.get("task")
    if not await platform.ledger.dead_letters.runs_of(name, task, limit=1):
        return None, Progress(0, 0, action, 0)
    filters = {"fingerprint": name} | ({} if task is None else {"task": task})
    selection = await platform.ledger.selections.make(action, OF_GROUP, [name, task], filters, actor)
    until = time.monotonic() + ACT_SECONDS
    progress = await act(platform, selection.id, actor, wishes)
    while progress.remaining and time.monotonic() < until:
        progress = await act(platform, selection.id, actor, wishes)
    return selection.id, progress


def _message(row: Row, most: int | None = None) -> DeadMessage:
    whole: bytes = row["body"]
    body, text = whole[:most], None
    if _is_text(whole):
        # What was cut may end within a character; that one is left out.
        text = body.decode(errors="ignore")
    encoded = None if text is not None else base64.b64encode(body).decode()
    return DeadMessage.of(row, size=len(whole), text=text, base64=encoded)


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fingerprint(text: str) -> str:
    if not (text.isascii() and text.isalnum() and len(text) <= MOST_FINGERPRINT):
        raise _no_group()
    return text


def _message_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _no_message() from None


def _no_group() -> ProblemError:
    message = "there is no such group of dead letters (any more); GET /api/v1/dead-letters lists those there are"
    return ProblemError(NOT_FOUND, message)


def _no_message() -> ProblemError:
    message = "no message has this id; it may have been redelivered or discarded"
    return ProblemError(NOT_FOUND, message)
