"""What needs a person: failed runs and unreadable messages, looked at and dealt with by the group."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from litestar import Response, get, post

from carillon.dead_letters import DeadLetterOffice, DeadLetterReader
from carillon.errors import InvalidArgumentsError, PlatformUnavailableError
from carillon.platform import Platform
from carillon.shapes import moment
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of, query
from gateway.api.selections import ACT, act_view, pace
from gateway.api.steer_views import (
    ActView,
    DeadLetterGroup,
    DeadLetterGroups,
    DeadMessage,
    DeadRun,
    Discarded,
    MessageGroupView,
    Redelivered,
    RedeliveredGroup,
    RunGroupView,
)
from gateway.api.views import Row
from gateway.cursors import Cursors
from gateway.errors import CONFLICT, UNAVAILABLE, Fault, ProblemError, invalid
from gateway.filters import PAGED, WORD

#: Of a message's body, in the list of a group.
MOST_SHOWN_BYTES = 4096
#: Of a group that is large, a request deals with as much as fits into this time, and says what remains.
ACT_WITHIN = timedelta(seconds=5)

_LIMIT = {"type": "integer", "minimum": 1, "maximum": 100}
_TASK = {**WORD, "description": "Only the runs of this task; without it those of all tasks that failed in this way."}
#: The query of `GET /api/v1/dead-letters`.
GROUPS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "domain": {**WORD, "description": "The name of a domain."},
        "limit": {
            **_LIMIT,
            "description": "How many groups of each kind are listed at most.",
            "maximum": 400,
            "default": 50,
        },
    },
    "additionalProperties": False,
}
#: The query of `GET /api/v1/dead-letters/{fingerprint}`.
MEMBERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "task": _TASK,
        "limit": {**_LIMIT, "description": "How many members a page has at most, newest first.", "default": 20},
        "cursor": PAGED["cursor"],
    },
    "additionalProperties": False,
}
#: The bodies of what is done to a group; they may be empty.
REPLAY_GROUP: dict[str, Any] = {**ACT, "properties": {"task": _TASK, **ACT["properties"]}}
DISCARD: dict[str, Any] = {**REASON, "properties": {"task": _TASK, "reason": WHY}}
REDELIVER_GROUP: dict[str, Any] = {
    **REASON,
    "properties": {
        "limit": {
            "description": "How many are redelivered at most, such as 1 to see first whether it can be read now.",
            "type": "integer",
            "minimum": 1,
            "maximum": 1_000_000,
        },
        "until": {
            "description": "Only what came until then: `until` of the answer before, so that what comes back is not "
            "sent again.",
            "type": "string",
            "format": "date-time",
        },
        "reason": WHY,
    },
}
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
    groups = await DeadLetterReader(platform).groups(asked.get("domain"), asked.get("limit", 50))
    return DeadLetterGroups(
        runs=[RunGroupView.of(asdict(group), error=group.message) for group in groups.runs],
        messages=[MessageGroupView.of(asdict(group), error=group.message) for group in groups.messages],
        more=groups.more,
    )


@get("/api/v1/dead-letters/{fingerprint:str}", tags=["Dead letters"])
async def list_group(request: Asked, fingerprint: str, platform: Platform, cursors: Cursors) -> DeadLetterGroup:
    """The members of a group, page by page: failed runs with arguments and error, or messages with body and headers."""
    asked = query(request, MEMBERS)
    group = {"group": fingerprint, "task": asked.get("task")}
    after = cursors.read(asked["cursor"], group) if "cursor" in asked else None
    found = await DeadLetterReader(platform).members(
        fingerprint, task=asked.get("task"), limit=asked.get("limit", 20), after=after
    )
    return DeadLetterGroup(
        fingerprint=fingerprint,
        runs=[DeadRun.of(row) for row in found.runs],
        messages=[_message(row, MOST_SHOWN_BYTES) for row in found.messages],
        next_cursor=None if found.last is None else cursors.write(found.last, group),
    )


@get("/api/v1/dead-letters/messages/{id:str}", tags=["Dead letters"])
async def show_message(id: str, platform: Platform) -> DeadMessage:  # noqa: A002 - its name in the address
    """One message that could not be read: all that is kept of it, which is the first MiB where it was cut."""
    return _message(await DeadLetterReader(platform).message(id))


@post("/api/v1/dead-letters/{fingerprint:str}/replay", status_code=202, tags=["Dead letters"])
async def replay_group(request: Asked, fingerprint: str, platform: Platform, bodies: Bodies) -> Response[ActView]:
    """Run the failed runs of a group again: one goes ahead, the others follow at a rate once it has completed.

    Runs that were replayed are no dead letters any more, unless their replay fails: then that is one.
    """
    wishes = await bodies.wishes(request, REPLAY_GROUP)
    office = _office(platform, request, wishes)
    try:
        progress = await office.replay(fingerprint, task=wishes.get("task"), **pace(wishes), within=ACT_WITHIN)
    except InvalidArgumentsError as error:
        raise invalid(Fault("fingerprint", str(error))) from None
    headers = {"Location": f"/api/v1/selections/{progress.selection}/act"}
    return Response(act_view(progress), headers=headers)


@post("/api/v1/dead-letters/{fingerprint:str}/redeliver", status_code=200, tags=["Dead letters"])
async def redeliver_group(request: Asked, fingerprint: str, platform: Platform, bodies: Bodies) -> RedeliveredGroup:
    """Hand the messages of a group to their queue again, oldest first, for as long as a request may take.

    What cannot be read there either comes back. While something is `remaining`, send it again with the `until` of the
    answer; what came back since then is left alone. Messages that were cut stay: they need a body each.
    """
    wishes = await bodies.wishes(request, REDELIVER_GROUP)
    until = moment(wishes["until"]) if "until" in wishes else None
    try:
        done = await _office(platform, request, wishes).redeliver(
            fingerprint, limit=wishes.get("limit"), until=until, within=ACT_WITHIN
        )
    except PlatformUnavailableError as error:
        raise _not_taken(platform, error) from None
    return RedeliveredGroup(**asdict(done))


@post("/api/v1/dead-letters/{fingerprint:str}/discard", status_code=200, tags=["Dead letters"])
async def discard_group(request: Asked, fingerprint: str, platform: Platform, bodies: Bodies) -> Discarded:
    """Be done with a group: its runs are settled and stay in the history, its messages are thrown away."""
    wishes = await bodies.wishes(request, DISCARD)
    try:
        done = await _office(platform, request, wishes).discard(fingerprint, task=wishes.get("task"), within=ACT_WITHIN)
    except InvalidArgumentsError as error:
        raise invalid(Fault("fingerprint", str(error))) from None
    return Discarded(**asdict(done))


@post("/api/v1/dead-letters/messages/{id:str}/redeliver", status_code=200, tags=["Dead letters"])
async def redeliver_message(request: Asked, id: str, platform: Platform, bodies: Bodies) -> Redelivered:  # noqa: A002 - as above
    """Hand a message to its queue again, perhaps with a mended body."""
    wishes = await bodies.wishes(request, REDELIVER)
    body = wishes["body"].encode() if "body" in wishes else None
    try:
        message = await _office(platform, request, wishes).redeliver_message(id, body)
    except PlatformUnavailableError as error:
        raise _not_taken(platform, error) from None
    return Redelivered(id=message["id"], queue=message["queue"])


def _office(platform: Platform, request: Asked, wishes: Mapping[str, Any]) -> DeadLetterOffice:
    return DeadLetterOffice(platform, operator_of(request), wishes.get("reason"))


def _not_taken(platform: Platform, error: PlatformUnavailableError) -> ProblemError:
    return ProblemError(CONFLICT if platform.transport.is_ledger else UNAVAILABLE, str(error))


def _message(row: Row, most: int | None = None) -> DeadMessage:
    whole: bytes = row["body"]
    body, text = whole[:most], None
    if _is_text(whole, cut=row["size"] is not None):
        # What was cut may end within a character; that one is left out.
        text = body.decode(errors="ignore")
    encoded = None if text is not None else base64.b64encode(body).decode()
    cut = row["size"] is not None
    return DeadMessage.of(row, size=row["size"] if cut else len(whole), cut=cut, text=text, base64=encoded)


def _is_text(body: bytes, *, cut: bool) -> bool:
    """Whether it is UTF-8; of a body that was cut, but for a character that may have been cut with it."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(body, final=not cut)
    except UnicodeDecodeError:
        return False
    return True
