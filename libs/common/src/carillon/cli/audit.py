"""`carillon audit`: the newest entries of the audit trail, and whether its chain holds. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.cli.exits import FAILED, OK, complain, in_one_sentence
from carillon.cli.settings import CommandSettings, platform_settings
from carillon.errors import ConfigurationError, PlatformUnavailableError
from carillon.ledger.audit import ACTIONS, Audit, AuditSearch, Row
from carillon.ledger.audit_chain import Link, canonical
from carillon.settings import sqlalchemy_url

CONNECT_SECONDS = 5
#: No stretch of the chain takes longer to read, in seconds.
READ_SECONDS = 30
#: Where there is no terminal, wide enough for every line.
PLAIN_WIDTH = 200
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
    async with _audit() as audit:
        rows = await audit.page(search)
    if as_json:
        sys.stdout.writelines(f"{canonical(row)}\n" for row in rows)
    else:
        _print_table(rows)
    return OK


async def _check(noted: Link | None) -> int:
    async with _audit() as audit:
        verdict = await audit.verify(noted)
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


@asynccontextmanager
async def _audit() -> AsyncIterator[Audit]:
    """The trail; raises `PlatformUnavailableError` saying what to check."""
    url = platform_settings(CommandSettings()).database_url.get_secret_value()
    engine = create_async_engine(
        sqlalchemy_url(url), connect_args={"timeout": CONNECT_SECONDS, "command_timeout": READ_SECONDS}
    )
    try:
        yield Audit(engine)
    except ProgrammingError as error:
        message = "The database has no audit trail that this version can read; run `carillon migrate`."
        raise PlatformUnavailableError(message) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).splitlines()[0]
        message = f"The audit trail could not be read ({reason}); check DATABASE_URL and the server."
        raise PlatformUnavailableError(message) from error
    finally:
        await engine.dispose()


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


def _print_table(rows: Sequence[Row]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(row[name])) for name in COLUMNS))
    console.print(table if rows else "No entry.")


def _printable(value: object) -> str:
    """The value on one line, and nothing that a terminal would obey."""
    text = "" if value is None else " ".join(str(value).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
