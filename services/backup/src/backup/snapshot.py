"""A dump of one moment: manifest and pg_dump see the same snapshot, while the database goes on changing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from backup.archive import store_output
from backup.child import in_thread, running
from backup.manifest import fix_settings, read_sequences, take_manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Record
    from obstore.store import ObjectStore

    from backup.archive import Stored
    from backup.manifest import Manifest
    from backup.sources import Source
    from backup.tools import Tools

#: A password comes from the file or not at all; a table locked for longer than this ends the dump, which is retried.
OPTIONS = ("--format=custom", "--compress=0", "--no-password", "--lock-wait-timeout=60s")
DATABASE_SIZE = "select pg_database_size(current_database())"


@dataclass(frozen=True)
class Dump:
    """One stored dump and what the database held when it was taken."""

    key: str
    stored: Stored
    manifest: Manifest
    seconds: float


async def dump(source: Source, tools: Tools, storage: ObjectStore, key: str, *, level: int) -> Dump:
    """Dump a source into one object of the storage; a failure or a cancel leaves nothing under its key."""
    started = monotonic()
    async with source.connection() as connection, _snapshot(connection) as snapshot:
        size = await connection.fetchval(DATABASE_SIZE)
        manifest = await take_manifest(connection)
        command = (tools.pg_dump, *OPTIONS, f"--snapshot={snapshot}")
        with running(source, command, feeds=False) as child:
            work = partial(store_output, child, storage, key, level=level, expected_bytes=size)
            stored = await in_thread(child, work)
        manifest = manifest.spanning(await read_sequences(connection, list(manifest.sequences)))
    return Dump(key=key, stored=stored, manifest=manifest, seconds=monotonic() - started)


@asynccontextmanager
async def _snapshot(connection: Connection[Record]) -> AsyncIterator[str]:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await fix_settings(connection)
        yield str(await connection.fetchval("select pg_catalog.pg_export_snapshot()"))
