"""What needs a person: failed runs and unreadable messages, looked at and dealt with by the group."""

from __future__ import annotations

import base64
import codecs
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from litestar import Response, get, post

from carillon.errors import InvalidArgumentsError, PlatformUnavailableError
from carillon.ledger.audit import Actor
from carillon.ledger.dead_letters import OF_GROUP, REDELIVERED
from carillon.ledger.history import Cursor
from carillon.ledger.selections import Act, Progress
from carillon.platform import Platform
from carillon.shapes import moment
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
    RedeliveredGroup,
    RunGroupView,
)
from gateway.api.views import Row
from gateway.cursors import Cursors
from gateway.errors import CONFLICT, NOT_FOUND, UNAVAILABLE, Fault, ProblemError, invalid
from gateway.filters import PAGED, WORD

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
    letters, which = platform.ledger.dead_letters, (asked.get("domain"), asked.get("limit", 50))
    return DeadLetterGroups(
        runs=[RunGroupView.of(asdict(group), error=group.message) for group in await letters.runs(*which)],
        messages=[MessageGroupView.of(asdict(group), error=group.message) for group in await letters.messages(*which)],
    )


@get("/api/v1/dead-letters/{fingerprint:str}", tags=["Dead letters"])
async def list_group(request: Asked, fingerprint: str, platform: Platform, cursors: Cursors) -> DeadLetterGroup:
    """The members of a group, page by page: failed runs with arguments and error, or messages with body and headers."""
    asked = query(request, MEMBERS)
    limit, name, task = asked.get("limit", 20), _fingerprint(fingerprint), asked.get("task")
    group = {"group": name, "task": task}
    after = cursors.read(asked["cursor"], group) if "cursor" in asked else None
    letters = platform.ledger.dead_letters
    runs = [dict(row) for row in await letters.runs_of(name, task, limit + 1, after)]
    messages = [dict(row) for row in await letters.of_group(name, limit + 1, after)]
    if not runs and not messages and after is None:
        raise _no_group()
    last = _last(runs, limit, "created_at") or _last(messages, limit, "received_at")
    return DeadLetterGroup(
        fingerprint=name,
        runs=[DeadRun.of(row) for row in runs[:limit]],
        messages=[_message(row, MOST_SHOWN_BYTES) for row in messages[:limit]],
        next_cursor=None if last is None else cursors.write(last, group),
    )


def _last(rows: Sequence[Row], limit: int, moment_of: str) -> Cursor | None:
    """The last row of a page, where there are more rows."""
    return Cursor(rows[limit - 1][moment_of], rows[limit - 1]["id"]) if len(rows) > limit else None


@get("/api/v1/dead-letters/messages/{id:str}", tags=["Dead letters"])
async def show_message(id: str, platform: Platform) -> DeadMessage:  # noqa: A002 - its name in the address
    """One message that could not be read: all that is kept of it, which is the first MiB where it was cut."""
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
        raise await _no_runs(platform, fingerprint)
    return Response(act_view(selection, progress), headers={"Location": f"/api/v1/selections/{selection}/act"})


async def _no_runs(platform: Platform, fingerprint: str) -> ProblemError:
    if await platform.ledger.dead_letters.standing(fingerprint) is None:
        return _no_group()
    path = f"POST /api/v1/dead-letters/{fingerprint}/redeliver"
    message = (
        f"this group is of messages, not of runs; hand them to their queue again with {path} "
        f"or `carillon dead-letters redeliver {fingerprint}`"
    )
    return ProblemError(CONFLICT, message)


@post("/api/v1/dead-letters/{fingerprint:str}/redeliver", status_code=200, tags=["Dead letters"])
async def redeliver_group(request: Asked, fingerprint: str, platform: Platform, bodies: Bodies) -> RedeliveredGroup:
    """Hand the messages of a group to their queue again, oldest first, for as long as a request may take.

    What cannot be read there either comes back. While something is `remaining`, send it again with the `until` of the
    answer; what came back since then is left alone. Messages that were cut stay: they need a body each.
    """
    wishes, actor, name = await bodies.wishes(request, REDELIVER_GROUP), operator_of(request), _fingerprint(fingerprint)
    letters, transport = platform.ledger.dead_letters, platform.transport
    standing = await letters.standing(name)
    if standing is None:
        raise _no_group()
    until = moment(wishes["until"]) if "until" in wishes else standing.newest
    left, sent, deadline = wishes.get("limit", standing.whole), 0, time.monotonic() + ACT_SECONDS
    while left > sent and time.monotonic() < deadline:
        most = min(left - sent, REDELIVERED)
        try:
            taken = await letters.redeliver_oldest(name, transport, actor, wishes.get("reason"), until=until, most=most)
        except PlatformUnavailableError as error:
            raise _not_taken(platform, error) from None
        if not taken:
            break
        sent += taken
    now = await letters.standing(name, until)
    return RedeliveredGroup(count=sent, remaining=now.whole if now else 0, cut=now.cut if now else 0, until=until)


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
    return Discarded(count=progress.done - progress.skipped + thrown, remaining=progress.remaining)


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
        raise _not_taken(platform, error) from None
    except InvalidArgumentsError as error:
        raise ProblemError(CONFLICT, str(error)) from None
    if not taken:
        raise _no_message()
    return Redelivered(id=letter, queue=found["queue"])


def _not_taken(platform: Platform, error: PlatformUnavailableError) -> ProblemError:
    return ProblemError(CONFLICT if platform.transport.is_ledger else UNAVAILABLE, str(error))


async def _on_group(
    platform: Platform, action: Act, fingerprint: str, actor: Actor, wishes: Mapping[str, Any]
) -> tuple[UUID | None, Progress]:
    """Act upon the failed runs of a group for as long as a request may take; no selection when there are none."""
    name, task = _fingerprint(fingerprint), wishes.get("task")
    if not await platform.ledger.dead_letters.runs_of(name, task, limit=1):
        return None, Progress(0, 0, 0, action, 0)
    filters = {"fingerprint": name} | ({} if task is None else {"task": task})
    try:
        selection = await platform.ledger.selections.make(action, OF_GROUP, [name, task], filters, actor)
    except InvalidArgumentsError as error:
        message = f"is too large a group: {error}, in POST /api/v1/selections with this fingerprint as a filter"
        raise invalid(Fault("fingerprint", message)) from None
    until = time.monotonic() + ACT_SECONDS
    progress = await act(platform, selection.id, actor, wishes)
    while progress.remaining and time.monotonic() < until:
        progress = await act(platform, selection.id, actor, wishes)
    return selection.id, progress


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
