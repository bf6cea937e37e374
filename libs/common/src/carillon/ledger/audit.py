"""The audit trail: who did what to what, when, why and from where, each entry chained to the one before.

What an entry tells is written in the transaction of the action itself, so there is neither without the other:

```python
async with platform.ledger.transaction() as connection:
    ...
    await record(connection, actor.did("schedule.paused", "nightly-backup", reason="the disk is full"))
```

The table does the rest (migration 0002): it numbers entries without gaps, takes the time, and sets `hash` to the
SHA-256 of its fields, among which is the hash of the entry before. Decision 0009 says how anyone can check that;
`carillon.ledger.audit_chain` does.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

from sqlalchemy import ColumnElement, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.ledger.audit_chain import Link, Verdict, canonical, spelled, verify
from carillon.ledger.tables import audit

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | AsyncConnection

Row = Mapping[str, Any]

#: Every word that an entry may say was done. What is new gets a word here first.
Action = Literal[
    "key.created",
    "key.replaced",
    "key.revoked",
    "message.discarded",
    "message.redelivered",
    "queue.limit_changed",
    "queue.paused",
    "queue.resumed",
    "run.cancelled",
    "run.paused",
    "run.replayed",
    "run.resumed",
    "run.settled",
    "runs.cancelled",
    "runs.deleted",
    "runs.replayed",
    "runs.settled",
    "schedule.changed",
    "schedule.created",
    "schedule.paused",
    "schedule.removed",
    "schedule.resumed",
    "secret.replaced",
    "task.added",
    "task.paused",
    "task.policy_changed",
    "task.removed",
    "task.resumed",
    "workflow.approved",
    "workflow.forked",
    "workflow.refused",
]
ACTIONS: tuple[str, ...] = get_args(Action)

MOST_REASON = 500
#: Of an actor's name, an origin and a subject; longer ones are cut.
MOST_NAME = 200
MOST_DETAIL_BYTES = 8192
#: No page is larger.
MOST_ROWS = 500
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


class Actor(NamedTuple):
    """Who acts, and from where: the name of a key, a person or a service, and the process, host or address."""

    name: str
    origin: str

    @classmethod
    def process(cls, program: str, name: str | None = None) -> Self:
        """This process, acting by itself or for the person `name`."""
        return cls(name or program, f"{program} (process {os.getpid()}) of {account()} on {socket.gethostname()}")

    def did(self, action: Action, subject: str, reason: str | None = None, **details: Any) -> Entry:
        """The entry that says so. Details are JSON, and hold no secret: they are shown to whoever may read."""
        return Entry(actor=self, action=action, subject=subject, reason=reason or None, details=details)


def account() -> str:
    """The name of the account that this process runs under, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"account {os.getuid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded. Raises `ValueError` for a reason beyond 500 characters, or for what no table can keep."""

    actor: Actor
    action: Action
    subject: str
    reason: str | None
    details: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what PostgreSQL would refuse in the middle of the action."""
        if self.action not in ACTIONS:
            message = f"{self.action!r} is no action; add it to carillon.ledger.audit.Action"
            raise ValueError(message)
        if self.reason is not None and len(self.reason) > MOST_REASON:
            message = f"the reason may have {MOST_REASON} characters, not {len(self.reason)}"
            raise ValueError(message)
        for value in (*self.actor, self.subject, self.reason or ""):
            if "\0" in value or _HALF_CHARACTER.search(value):
                message = f"{value[:MOST_NAME]!a} holds the character NUL or half a character, which cannot be kept"
                raise ValueError(message)

    def values(self) -> dict[str, str | None]:
        """The columns that are not the table's own affair."""
        return {
            "actor": self.actor.name[:MOST_NAME],
            "origin": self.actor.origin[:MOST_NAME],
            "action": self.action,
            "subject": self.subject[:MOST_NAME],
            "reason": self.reason,
            "details": _bounded(self.details),
        }


def _bounded(details: Mapping[str, Any]) -> str:
    """The details as JSON; what is too long to be kept is still named by its SHA-256."""
    written = canonical(details)
    encoded = written.encode()
    if len(encoded) <= MOST_DETAIL_BYTES:
        return written
    return canonical({"omitted_bytes": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()})


_INSERT = "insert into carillon.audit (actor, origin, action, subject, reason, details) values "
_BY_NUMBER = f"{_INSERT} ($1, $2, $3, $4, $5, $6)"
_BY_NAME = text(f"{_INSERT} (:actor, :origin, :action, :subject, :reason, cast(:details as json))")


async def record(connection: Connection, *entries: Entry) -> None:
    """Enter what was done, in the transaction that does it.

    Call it once and last: from here to the commit every other entry waits, and a lock that is taken after this one
    may be held by somebody who waits for this one.
    """
    rows = [entry.values() for entry in entries]
    if not rows:
        return
    if isinstance(connection, AsyncConnection):
        await connection.execute(_BY_NAME, rows)
    else:
        await connection.executemany(_BY_NUMBER, [tuple(row.values()) for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSearch:
    """Which entries; every part that is set must hold."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    #: Done at or after the first moment, and before the second.
    since: datetime | None = None
    until: datetime | None = None
    #: Only entries with a smaller number: where the next page begins.
    before: int | None = None
    limit: int = 50


class Audit:
    """Reading the audit trail, and checking it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._verifying = asyncio.Lock()

    async def page(self, search: AuditSearch) -> list[Row]:
        """Entries, newest first. `at` is spelled as it is hashed."""
        query = select(audit).where(*_conditions(search)).order_by(audit.c.seq.desc())
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query.limit(min(search.limit, MOST_ROWS)))).mappings()
            return [{**row, "at": spelled(row["at"])} for row in rows]

    async def verify(self, noted: Link | None = None) -> Verdict:
        """How far the chain holds; see `carillon.ledger.audit_chain`.

        One after the other, so that however many ask, it takes one connection.
        """
        async with self._verifying:
            return await verify(self._engine, noted)


def _conditions(search: AuditSearch) -> list[ColumnElement[bool]]:
    named = {"actor": search.actor, "action": search.action, "subject": search.subject}
    found = [audit.c[name] == value for name, value in named.items() if value is not None]
    if search.since is not None:
        found.append(audit.c.at >= search.since)
    if search.until is not None:
        found.append(audit.c.at < search.until)
    if search.before is not None:
        found.append(audit.c.seq < search.before)
    return found
