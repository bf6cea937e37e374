"""The proof of a dump: it is restored into a scratch database of the source's server, which must hold the same.

The drill holds an advisory lock named after its scratch database. So one backup is worked at once only, and a scratch
database without its lock is the leftover of a dead run, which the next drill on the server drops.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from backup.archive import feed_stored
from backup.child import in_thread, running
from backup.errors import AlreadyAtItError, UnequalRestoreError
from backup.manifest import Manifest, differences, fix_settings, take_manifest
from backup.sources import SCRATCH_PREFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from uuid import UUID

    from asyncpg import Connection, Record
    from obstore.store import ObjectStore

    from backup.snapshot import Dump
    from backup.sources import Source
    from backup.tools import Tools

#: Owners and grants are not part of the proof: its user may be unable to give things away. A subscription must never
#: be restored beside the original, because dropping the copy would drop the publisher's slot.
OPTIONS = ("--format=custom", "--no-password", "--no-owner", "--no-privileges", "--no-subscriptions")
#: How many differences one error tells.
TOLD = 5
DROP_SECONDS = 60
#: When to try again for a backup that another worker is still at.
LOOK_AGAIN = timedelta(seconds=30)

LOCK = "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))"

# Advisory locks are per database, the view of them is not: a drill of another source on this server counts as alive.
LEFTOVERS = r"""
select d.datname from pg_catalog.pg_database as d
where d.datname ~ '^carillon_scratch_[0-9a-f]{32}$' and pg_catalog.pg_get_userbyid(d.datdba) = current_user
  and not exists (
      select from pg_catalog.pg_locks as l
      where l.locktype = 'advisory' and l.objsubid = 1
        and (l.classid::bigint << 32) | l.objid::bigint = pg_catalog.hashtextextended(d.datname, 0)
  )
"""

# As JSON, because the column that holds an ICU or built-in locale changed its name twice between 13 and 18.
OWN_DATABASE = """
select pg_catalog.pg_encoding_to_char(d.encoding) as encoding, d.datcollate, d.datctype,
       pg_catalog.to_jsonb(d) ->> 'datlocprovider' as provider,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale') as locale
from pg_catalog.pg_database as d where d.datname = current_database()
"""


def scratch_name(backup_id: UUID) -> str:
    """Name the scratch database of one backup."""
    return f"{SCRATCH_PREFIX}{backup_id.hex}"


@asynccontextmanager
async def sole_worker(source: Source, backup_id: UUID) -> AsyncIterator[Connection[Record]]:
    """Hold the lock of one backup, on a connection. Raises AlreadyAtItError while another worker holds it."""
    async with source.connection() as admin:
        if not await admin.fetchval(LOCK, scratch_name(backup_id)):
            message = f"another worker is still at backup {backup_id}"
            raise AlreadyAtItError(LOOK_AGAIN, message)
        await admin.execute("set statement_timeout = 0")
        yield admin


@dataclass(frozen=True)
class Drill:
    """Restores dumps of one source beside it. `admin` is the connection of `sole_worker`."""

    source: Source
    tools: Tools
    storage: ObjectStore
    admin: Connection[Record]

    async def prove(self, dump: Dump, backup_id: UUID) -> float:
        """Restore a dump and compare its contents; return how long the restore took, in seconds.

        Raises DamagedBackupError or UnequalRestoreError where the dump does not come back as it was.
        """
        name, started = scratch_name(backup_id), monotonic()
        async with _scratch(self.admin, name):
            await self._restore(dump, name)
            seconds = monotonic() - started
            found = await _manifest_of(self.source, name)
        _require_equal(dump.manifest, found)
        return seconds

    async def _restore(self, dump: Dump, name: str) -> None:
        # Newer tools begin with a setting an older server refuses. That one error is let pass, and no other.
        unknown_timeout = self.tools.sets_unknown_timeout(self.admin.get_server_version().major)
        tolerated, strictness = ("transaction_timeout", ()) if unknown_timeout else (None, ("--exit-on-error",))
        with running(
            self.source, (self.tools.pg_restore, *OPTIONS, *strictness, f"--dbname={name}"), feeds=True
        ) as child:
            sha256 = dump.stored.sha256
            work = partial(feed_stored, child, self.storage, dump.key, sha256=sha256, tolerated=tolerated)
            await in_thread(child, work)


async def reap(admin: Connection[Record]) -> list[str]:
    """Drop the scratch databases that dead runs left on this server, and return their names."""
    dropped = [row["datname"] for row in await admin.fetch(LEFTOVERS)]
    for name in dropped:
        await _drop(admin, name)
    return dropped


async def _manifest_of(source: Source, name: str) -> Manifest:
    async with source.connection(name) as copy, copy.transaction(isolation="repeatable_read", readonly=True):
        await fix_settings(copy)
        return await take_manifest(copy)


def _require_equal(expected: Manifest, found: Manifest) -> None:
    told = differences(expected, found)
    if told:
        more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
        message = f"the restored copy differs from what was dumped: {'; '.join(told[:TOLD])}{more}"
        raise UnequalRestoreError(message)


@asynccontextmanager
async def _scratch(admin: Connection[Record], name: str) -> AsyncIterator[None]:
    """Make a fresh database like the source's, gone afterwards: after a success, a failure and a cancel."""
    try:
        await _drop(admin, name)
        await admin.execute(await _creation(admin, name))
        # It is thrown away in any case, so waiting for the disk buys nothing.
        await admin.execute(f'alter database "{name}" set synchronous_commit = off')
        yield
    finally:
        await _unstoppably(_drop(admin, name))


async def _creation(admin: Connection[Record], name: str) -> str:
    own = await admin.fetchrow(OWN_DATABASE)
    if own is None:
        message = "the current database is not in pg_database"
        raise RuntimeError(message)
    options = [f"encoding {_quoted(own['encoding'])}"]
    options += [f"lc_collate {_quoted(own['datcollate'])}", f"lc_ctype {_quoted(own['datctype'])}"]
    if own["provider"] == "i":
        options.append(f"locale_provider icu icu_locale {_quoted(own['locale'])}")
    if own["provider"] == "b":
        options.append(f"locale_provider builtin builtin_locale {_quoted(own['locale'])}")
    return f'create database "{name}" template template0 {" ".join(options)}'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


async def _drop(admin: Connection[Record], name: str) -> None:
    if not name.startswith(SCRATCH_PREFIX):
        message = f"{name} is not a scratch database, and backup drops no other"
        raise RuntimeError(message)
    await admin.execute(f'drop database if exists "{name}" with (force)', timeout=DROP_SECONDS)


async def _unstoppably(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even when the caller is cancelled once more meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=DROP_SECONDS)
        raise
