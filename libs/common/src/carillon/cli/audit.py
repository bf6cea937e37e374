"""`carillon audit`: the newest entries of the audit trail, and whether its chain holds. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.cli.asking import asking
from carillon.cli.exits import FAILED, OK, MistypedError, complain, in_one_sentence
from carillon.cli.tables import print_table
from carillon.ledger.audit import ACTIONS, MOST_ROWS, Audit, AuditSearch, Row
from carillon.ledger.audit_chain import Link, canonical
from carillon.ledger.typed import moment

TRAIL = "audit trail"
COLUMNS = ("seq", "at", "actor", "action", "subject", "reason", "origin")
NOTED = re.compile(r"^(\d{1,18}):([0-9a-f]{64})$")


class Wanted(NamedTuple):
    """Which entries are wanted, as it was typed."""

    actor: str | None
    action: str | None
    subject: str | None
    since: str | None
    until: str | None
    limit: int


def show(wanted: Wanted, *, as_json: bool) -> int:
    """Show entries, newest first."""
    return in_one_sentence(lambda: asyncio.run(_show(_search(wanted), as_json=as_json)))


def check(noted: str | None) -> int:
    """Follow the chain; 0 when it holds."""
    return in_one_sentence(lambda: asyncio.run(_check(_link(noted))))


async def _show(search: AuditSearch, *, as_json: bool) -> int:
    async with asking(TRAIL) as engine:
        if as_json:
            async for rows in _pages(engine, search):
                sys.stdout.writelines(f"{canonical(row)}\n" for row in rows)
            return OK
        found = [[row[name] for name in COLUMNS] async for rows in _pages(engine, search) for row in rows]
    print_table(COLUMNS, found, "No entry.")
    return OK


async def _pages(engine: AsyncEngine, search: AuditSearch) -> AsyncIterator[list[Row]]:
    """As many entries as are wanted, a page at a time."""
    left, before = search.limit, search.before
    while left > 0:
        rows = await Audit(engine).page(replace(search, limit=min(left, MOST_ROWS), before=before))
        if rows:
            yield rows
        if len(rows) < min(left, MOST_ROWS):
            break
        left, before = left - len(rows), rows[-1]["seq"]


async def _check(noted: Link | None) -> int:
    async with asking(TRAIL) as engine:
        verdict = await Audit(engine).verify(noted)
    sound, broken = verdict.sound, verdict.broken
    if broken is not None:
        complain(f"The chain is broken: entry {broken.seq} {broken.fault}. {sound.seq} entries before it hold.")
        return FAILED
    sys.stdout.write(
        f"The chain holds: {sound.seq} entries.\n"
        f"Note the newest one elsewhere. That none of them was written anew, this proves later:\n"
        f"  carillon audit verify --noted {sound.seq}:{sound.hash}\n"
    )
    return OK


def _search(wanted: Wanted) -> AuditSearch:
    if wanted.action is not None and wanted.action not in ACTIONS:
        message = f"There is no action {wanted.action!r}; there are {', '.join(ACTIONS)}."
        raise MistypedError(message)
    return AuditSearch(
        actor=wanted.actor,
        action=wanted.action,
        subject=wanted.subject,
        since=_moment("--since", wanted.since),
        until=_moment("--until", wanted.until),
        limit=wanted.limit,
    )


def _moment(word: str, typed: str | None) -> datetime | None:
    return None if typed is None else moment(word, typed)


def _link(noted: str | None) -> Link | None:
    if noted is None:
        return None
    match = NOTED.match(noted)
    if match is None:
        message = "--noted takes NUMBER:HASH, as `carillon audit verify` printed it."
        raise MistypedError(message)
    return Link(int(match[1]), match[2])
