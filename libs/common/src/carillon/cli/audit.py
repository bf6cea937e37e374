"""`carillon audit`: the newest entries of the audit trail, and whether its chain holds. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime
from typing import NamedTuple

from carillon.cli.asking import asking
from carillon.cli.exits import FAILED, OK, complain, in_one_sentence
from carillon.cli.tables import print_table
from carillon.errors import ConfigurationError
from carillon.ledger.audit import ACTIONS, Audit, AuditSearch
from carillon.ledger.audit_chain import Link, canonical

TRAIL = "audit trail"
COLUMNS = ("seq", "at", "actor", "action", "subject", "reason", "origin")
NOTED = re.compile(r"^(\d{1,18}):([0-9a-f]{64})$")


class Wanted(NamedTuple):
    """Which entries are wanted, as it was typed."""

    actor: str | None
    action: str | None
    subject: str | None
    since: str | None
    limit: int


def show(wanted: Wanted, *, as_json: bool) -> int:
    """Show entries, newest first."""
    return in_one_sentence(lambda: asyncio.run(_show(_search(wanted), as_json=as_json)))


def check(noted: str | None) -> int:
    """Follow the chain; 0 when it holds."""
    return in_one_sentence(lambda: asyncio.run(_check(_link(noted))))


async def _show(search: AuditSearch, *, as_json: bool) -> int:
    async with asking(TRAIL) as engine:
        rows = await Audit(engine).page(search)
    if as_json:
        sys.stdout.writelines(f"{canonical(row)}\n" for row in rows)
    else:
        print_table(COLUMNS, ([row[name] for name in COLUMNS] for row in rows), "No entry.")
    return OK


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
        raise ConfigurationError(message)
    since = None if wanted.since is None else _moment(wanted.since)
    return AuditSearch(
        actor=wanted.actor, action=wanted.action, subject=wanted.subject, since=since, limit=wanted.limit
    )


def _moment(typed: str) -> datetime:
    try:
        found = datetime.fromisoformat(typed)
    except ValueError as error:
        message = f"{typed!r} is no moment; write one like 2026-11-24 or 2026-11-24T09:00:00Z."
        raise ConfigurationError(message) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _link(noted: str | None) -> Link | None:
    if noted is None:
        return None
    match = NOTED.match(noted)
    if match is None:
        message = "--noted takes NUMBER:HASH, as `carillon audit verify` printed it."
        raise ConfigurationError(message)
    return Link(int(match[1]), match[2])
