"""How a proven backup is told to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carillon.contracts import BackupCompleted

if TYPE_CHECKING:
    from backup.record import Backup


def completed(backup: Backup) -> BackupCompleted:
    """Make the event that says a backup was stored and proven."""
    told = backup.model_dump(include=set(BackupCompleted.model_fields))
    return BackupCompleted.model_validate(told | {"backup_id": backup.id})
