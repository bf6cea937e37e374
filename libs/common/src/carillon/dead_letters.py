"""What needs a person, dealt with by the group: failed runs, and messages that nobody could read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from carillon import bulk
from carillon.errors import InvalidArgumentsError, NotFoundError, RunStateError
from carillon.ledger.audit import Actor
from carillon.ledger.dead_letters import MOST_ROWS, OF_GROUP, REDELIVERED, MessageGroup, RunGroup
from carillon.ledger.search import Cursor
from carillon.ledger.selections import RATE, Act, Progress
from carillon.platform import Platform

#: No fingerprint is longer.
MOST_FINGERPRINT = 64


class Groups(NamedTuple):
    """What needs a person, the newest first."""

    runs: list[RunGroup]
    messages: list[MessageGroup]
    #: Whether there are more of either than were asked for.
    more: bool


class Members(NamedTuple):
    """A page of one group, the newest first."""

    #: id, task, domain, state, attempt, labels, actor, created_at, started_at, finished_at, error, and args, which are
    #: None where they have more than 8 KB.
    runs: Sequence[Mapping[str, Any]]
    #: id, domain, queue, reason, fingerprint, body (bytes), size (of a body that was cut, otherwise None), headers and
    #: received_at.
    messages: Sequence[Mapping[str, Any]]
    #: The last of this page, where there are more.
    last: Cursor | None


@dataclass(frozen=True, slots=True)
class Redelivered:
    """How many messages of a group were handed to their queue again."""

    count: int
    #: Of those that came until then: how many can still be redelivered, and how many were cut and cannot.
    remaining: int
    cut: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Discarded:
    """How many runs were settled and messages thrown away, and how many runs that still has to be done to."""

    count: int
    remaining: int


class DeadLetterReader:
    """Reads the dead letters, of which a group is named by its fingerprint."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._letters = platform.ledger.dead_letters

    async def groups(self, domain: str | None = None, limit: int = 50) -> Groups:
        """The groups of failed runs and of unreadable messages, at most `limit` (up to 499) of each."""
        limit = _most(limit)
        runs, messages = await self._letters.runs(domain, limit + 1), await self._letters.messages(domain, limit + 1)
        return Groups(runs[:limit], messages[:limit], max(len(runs), len(messages)) > limit)

    async def members(
        self, fingerprint: str, *, task: str | None = None, limit: int = 20, after: Cursor | None = None
    ) -> Members:
        """A page of a group: its failed runs, of one task where that is named, or its messages; at most 499.

        Raises `NotFoundError` where there are none (any more). The next page begins `after` the `last` of this one.
        """
        name, limit = _name(fingerprint), _most(limit)
        runs = [dict(row) for row in await self._letters.runs_of(name, task, limit + 1, after)]
        messages = []
        if task is None:
            messages = [dict(row) for row in await self._letters.of_group(name, limit + 1, after)]
        if not runs and not messages and after is None:
            raise _no_group()
        last = _last(runs, limit, "created_at") or _last(messages, limit, "received_at")
        return Members(runs[:limit], messages[:limit], last)

    async def message(self, letter: UUID | str) -> Mapping[str, Any]:
        """One message, as in `Members`; raises `NotFoundError`."""
        row = await self._letters.message(_letter(letter))
        if row is None:
            raise _no_message()
        return dict(row)


class DeadLetterOffice(DeadLetterReader):
    """Deals with them as well, in somebody's name; `Operator.dead_letters` is one.

    Every call that names a group raises `NotFoundError` where there is nothing (left) in it. What is done is in the
    audit trail: who, why, and from where.
    """

    def __init__(self, platform: Platform, actor: Actor, reason: str | None = None) -> None:
        super().__init__(platform)
        self._actor = actor
        self._reason = reason

    async def replay(
        self,
        fingerprint: str,
        *,
        task: str | None = None,
        rate: float = RATE,
        canary: bool = True,
        within: timedelta | None = None,
    ) -> Progress:
        """Run the failed runs of a group again: one goes ahead, the others follow at `rate` once it has completed.

        What was replayed is no dead letter any more, unless its replay fails: then that is one. `within` is as of
        `Operator.act`, which goes on with the `selection` of the answer while something remains. Raises `RunStateError`
        for a group of messages, and `InvalidArgumentsError` for one of more than 1,000,000 runs.
        """
        name = _name(fingerprint)
        progress = await self._act("replay", name, task, rate=rate, canary=canary, within=within)
        if progress is not None:
            return progress
        if await self._letters.standing(name) is None:
            raise _no_group()
        message = (
            f"this group is of messages, not of runs; hand them to their queue again with "
            f"POST /api/v1/dead-letters/{name}/redeliver or `carillon dead-letters redeliver {name}`"
        )
        raise RunStateError(message)

    async def discard(self, fingerprint: str, *, task: str | None = None, within: timedelta | None = None) -> Discarded:
        """Be done with a group: its runs are settled and stay in the history, its messages are thrown away.

        With a task only its runs are. Call it again while something remains, which it does only where `within` ended.
        """
        name = _name(fingerprint)
        thrown = 0 if task is not None else await self._letters.discard(name, self._actor, self._reason)
        progress = await self._act("settle", name, task, within=within)
        if progress is None:
            if not thrown:
                raise _no_group()
            return Discarded(thrown, 0)
        return Discarded(thrown + progress.done - progress.skipped, progress.remaining)

    async def redeliver(
        self,
        fingerprint: str,
        *,
        limit: int | None = None,
        until: datetime | None = None,
        within: timedelta | None = None,
    ) -> Redelivered:
        """Hand the messages of a group to their queue again, the oldest first, at most `limit`.

        What cannot be read there either comes back, so that only those that came until now are taken, or until the
        `until` of an earlier answer. Messages that were cut stay: they need a body each. Raises
        `PlatformUnavailableError` where the transport does not take one; what was handed over before stays so.
        """
        name = _name(fingerprint)
        standing = await self._letters.standing(name)
        if standing is None:
            raise _no_group()
        upto = standing.newest if until is None else until
        left, sent = standing.whole if limit is None else limit, 0
        deadline = None if within is None else time.monotonic() + within.total_seconds()
        while left > sent:
            taken = await self._letters.redeliver_oldest(
                name,
                self._platform.transport,
                self._actor,
                self._reason,
                until=upto,
                most=min(left - sent, REDELIVERED),
            )
            sent += taken
            if not taken or (deadline is not None and time.monotonic() >= deadline):
                break
        now = await self._letters.standing(name, upto)
        return Redelivered(sent, now.whole if now else 0, now.cut if now else 0, upto)

    async def redeliver_message(self, letter: UUID | str, body: bytes | None = None) -> Mapping[str, Any]:
        """Hand one message to its queue again, perhaps with a mended body; returns it as it was.

        Raises `NotFoundError`, `RunStateError` for one that was cut and is not mended, and `PlatformUnavailableError`
        where the transport does not take it; then it is still there.
        """
        found = await self.message(letter)
        taken = await self._letters.redeliver(
            found["id"], self._platform.transport, self._actor, self._reason, body=body
        )
        if not taken:
            raise _no_message()
        return found

    async def _act(
        self,
        action: Act,
        name: str,
        task: str | None,
        *,
        rate: float = RATE,
        canary: bool = True,
        within: timedelta | None = None,
    ) -> Progress | None:
        """Act upon the failed runs of a group; None where there are none."""
        if not await self._letters.runs_of(name, task, limit=1):
            return None
        filters = {"fingerprint": name} | ({} if task is None else {"task": task})
        try:
            selection = await self._platform.ledger.selections.make(
                action, OF_GROUP, [name, task], filters, self._actor
            )
        except InvalidArgumentsError as error:
            message = (
                f"the group is too large: {error}, in a selection with its fingerprint as a filter "
                f"(`Operator.select` or POST /api/v1/selections)"
            )
            raise InvalidArgumentsError(message) from None
        return await bulk.act(
            self._platform, selection.id, self._actor, self._reason, rate=rate, canary=canary, within=within
        )


def _last(rows: Sequence[Mapping[str, Any]], limit: int, moment: str) -> Cursor | None:
    """The last row of a page, where there are more rows."""
    return Cursor(rows[limit - 1][moment], rows[limit - 1]["id"]) if len(rows) > limit else None


def _most(limit: int) -> int:
    """How many a page has: one less than is read, by which it knows whether there are more."""
    if limit < 1:
        message = f"limit is {limit!r}; it is a whole number from 1 on"
        raise InvalidArgumentsError(message)
    return min(limit, MOST_ROWS - 1)


def _name(fingerprint: str) -> str:
    if not (fingerprint.isascii() and fingerprint.isalnum() and len(fingerprint) <= MOST_FINGERPRINT):
        raise _no_group()
    return fingerprint


def _letter(letter: UUID | str) -> UUID:
    try:
        return letter if isinstance(letter, UUID) else UUID(letter)
    except ValueError:
        raise _no_message() from None


def _no_group() -> NotFoundError:
    return NotFoundError(
        "there is no such group of dead letters (any more); `carillon dead-letters` or GET /api/v1/dead-letters lists "
        "those there are"
    )


def _no_message() -> NotFoundError:
    return NotFoundError("no message has this id; it may have been redelivered or discarded")
