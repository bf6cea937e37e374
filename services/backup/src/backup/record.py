"""What is remembered of one backup, whether it ended well or not."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from backup.manifest import Manifest


class Backup(BaseModel):
    """One backup of one source: what was stored, what it held, and whether it was proven to come back."""

    model_config = ConfigDict(frozen=True)

    #: The id of the run that took it.
    id: UUID
    source: str
    #: `dumped` is stored and not yet proven; `proven` was restored and found equal; `failed` says why below.
    state: Literal["dumped", "proven", "failed"] = "dumped"
    created_at: datetime
    #: Where the dump lies in the storage; none before it is whole.
    key: str | None = None
    stored_bytes: int = 0
    #: SHA-256 of the stored bytes, in hexadecimal.
    sha256: str | None = None
    plain_bytes: int = 0
    plain_sha256: str | None = None
    tables: int = 0
    rows: int = 0
    manifest: Manifest | None = None
    manifest_sha256: str | None = None
    dump_seconds: float = 0
    restore_seconds: float = 0
    #: Versions of the server, pg_dump and pg_restore.
    tools: dict[str, str] = Field(default_factory=dict)
    #: Of a failed one: `dump`, `restore` or `compare`, and what went wrong.
    stage: str | None = None
    reason: str | None = None


class Records(Protocol):
    """Where backups are remembered."""

    async def find(self, backup_id: UUID) -> Backup | None:
        """Find the backup with this id, if it was ever begun."""

    async def keep(self, backup: Backup) -> None:
        """Remember a backup, in place of what was known under its id; a proven one stays proven."""

    async def recent(self, limit: int) -> Sequence[Backup]:
        """List the latest backups, newest first."""
