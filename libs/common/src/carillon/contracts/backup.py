"""What backup hears and says."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from carillon.contracts.event import Event


class BackupRequested(Event):
    """Said by a schedule or a person who wants a backup of one source now."""

    type: ClassVar[str] = "backup.requested.v1"
    subject_field: ClassVar[str] = "source"

    source: str = Field(default="platform", pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    """The id of a configured source; never a host, path or connection string."""


class BackupCompleted(Event):
    """Said by backup once a dump was stored, restored into a scratch database and found equal."""

    type: ClassVar[str] = "backup.completed.v1"
    subject_field: ClassVar[str] = "source"

    source: str
    backup_id: UUID
    key: str
    """Key of the stored dump, below the platform's storage."""
    stored_bytes: int = Field(ge=0)
    plain_bytes: int = Field(ge=0)
    sha256: str
    """SHA-256 of the stored bytes, in hexadecimal."""
    tables: int = Field(ge=0)
    rows: int = Field(ge=0)
    manifest_sha256: str
    """SHA-256 over the content manifest that the restored copy was compared with."""
    dump_seconds: float = Field(ge=0)
    restore_seconds: float = Field(ge=0)


class BackupFailed(Event):
    """Said by backup when a source could not be dumped, stored or proven, and no attempt is left."""

    type: ClassVar[str] = "backup.failed.v1"
    subject_field: ClassVar[str] = "source"

    source: str
    stage: str
    """dump, store, restore or compare."""
    reason: str
