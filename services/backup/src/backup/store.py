"""The backups in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from backup.models import backups
from backup.record import Backup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

#: Everything but the manifest, which may be long and is of no use in a list.
LISTED = [column for column in backups.c if column.name != "manifest"]


@dataclass(frozen=True)
class BackupStore:
    """Remembers backups in the table `backup.backups`."""

    engine: AsyncEngine

    async def find(self, backup_id: UUID) -> Backup | None:
        """Find the backup with this id, if it was ever begun."""
        async with self.engine.begin() as connection:
            row = (await connection.execute(select(backups).where(backups.c.id == backup_id))).mappings().one_or_none()
        return None if row is None else Backup.model_validate(dict(row))

    async def keep(self, backup: Backup) -> None:
        """Remember a backup, in place of what was known under its id; a proven one stays proven."""
        values = backup.model_dump()
        put = insert(backups).values(values)
        news = {name: put.excluded[name] for name in values if name != "id"}
        statement = put.on_conflict_do_update(index_elements=["id"], set_=news, where=backups.c.state != "proven")
        async with self.engine.begin() as connection:
            await connection.execute(statement)

    async def recent(self, limit: int) -> Sequence[Backup]:
        """List the latest backups without their manifests, newest first."""
        latest = select(*LISTED).order_by(backups.c.created_at.desc(), backups.c.id.desc()).limit(limit)
        async with self.engine.begin() as connection:
            rows = (await connection.execute(latest)).mappings().all()
        return [Backup.model_validate(dict(row)) for row in rows]
