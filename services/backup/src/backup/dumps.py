"""Backing up: dump, keep, prove. A backup counts only once its restored copy was found equal."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backup.drill import Drill, reap, sole_worker
from backup.errors import UnequalRestoreError, UnknownSourceError
from backup.record import Backup
from backup.snapshot import dump
from backup.tools import tools_for
from carillon.errors import Snooze

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from asyncpg import Connection, Record
    from obstore.store import ObjectStore

    from backup.record import Records
    from backup.snapshot import Dump
    from backup.sources import Source
    from backup.tools import Tools

#: How much of an error is remembered, in characters.
REASON_CHARACTERS = 1000


@dataclass(frozen=True)
class Dumps:
    """The backups of the configured sources."""

    sources: Mapping[str, Source]
    storage: ObjectStore
    records: Records
    #: zstd's.
    level: int = 3
    #: Where pg_dump and pg_restore are; unset looks in the usual places.
    tools_folder: Path | None = None

    async def back_up(self, source_id: str, backup_id: UUID) -> Backup:
        """Dump a source under the id of its run, keep the dump, and prove that it comes back.

        A backup already proven is returned as it is. Raises the errors of `backup.errors`; what failed is remembered.
        """
        known = await self.records.find(backup_id)
        if known is not None and known.state == "proven":
            return known
        source = self._source(source_id)
        progress = _Progress(self.records, Backup(id=backup_id, source=source_id, created_at=datetime.now(UTC)))
        async with progress.remembering_failure(), sole_worker(source, backup_id) as admin:
            await self._dump_and_prove(source, progress, admin)
        return progress.backup

    async def recent(self, limit: int) -> Sequence[Backup]:
        """Find the latest backups of all sources, newest first."""
        return await self.records.recent(limit)

    async def _dump_and_prove(self, source: Source, progress: _Progress, admin: Connection[Record]) -> None:
        await reap(admin)
        tools = await tools_for(admin.get_server_version().major, self.tools_folder)
        backup_id = progress.backup.id
        key = f"backup/{source.id}/{backup_id}.dump.zst"
        taken = await dump(source, tools, self.storage, key, level=self.level)
        await progress.keep(_facts(taken) | {"tools": _versions(tools, admin)})
        seconds = await Drill(source, tools, self.storage, admin).prove(taken, backup_id)
        await progress.keep({"state": "proven", "restore_seconds": seconds})

    def _source(self, source_id: str) -> Source:
        try:
            return self.sources[source_id]
        except KeyError:
            message = f"there is no source {source_id!r}; configured are {', '.join(sorted(self.sources))}"
            raise UnknownSourceError(message) from None


@dataclass
class _Progress:
    """How far one backup has come, kept at every step."""

    records: Records
    backup: Backup

    async def keep(self, news: Mapping[str, object]) -> None:
        self.backup = self.backup.model_copy(update=news)
        await self.records.keep(self.backup)

    @asynccontextmanager
    async def remembering_failure(self) -> AsyncIterator[None]:
        """Keep why a backup failed, then let the error go on. Being asked to wait is no failure."""
        try:
            yield
        except Snooze:
            raise
        except Exception as error:
            reason = (str(error) or type(error).__name__)[:REASON_CHARACTERS]
            stage = self._stage(error)
            error.stage = stage  # type: ignore[attr-defined] # for whoever tells of it
            await self.keep({"state": "failed", "stage": stage, "reason": reason})
            raise

    def _stage(self, error: Exception) -> str:
        if isinstance(error, UnequalRestoreError):
            return "compare"
        return "dump" if self.backup.key is None else "restore"


def _facts(taken: Dump) -> dict[str, object]:
    manifest = taken.manifest
    return {
        "state": "dumped",
        "key": taken.key,
        **asdict(taken.stored),
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "manifest": manifest,
        "manifest_sha256": manifest.sha256,
        "dump_seconds": taken.seconds,
    }


def _versions(tools: Tools, admin: Connection[Record]) -> dict[str, str]:
    server = admin.get_server_version()
    return {"server": f"{server.major}.{server.minor}", "pg_dump": tools.version, "pg_restore": tools.version}
