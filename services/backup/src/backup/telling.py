"""How the end of a backup is told to others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backup.dumps import REASON_CHARACTERS
from carillon.contracts import BackupCompleted, BackupFailed

if TYPE_CHECKING:
    from backup.record import Backup


def completed(backup: Backup) -> BackupCompleted:
    """Make the event that says a backup was stored and proven."""
    told = backup.model_dump(include=set(BackupCompleted.model_fields))
    return BackupCompleted.model_validate(told | {"backup_id": backup.id})


def failed(arguments: Mapping[str, Any], error: BaseException) -> BackupFailed:
    """Make the event that says no attempt is left; `arguments` are those of either task that backs up."""
    asked: Mapping[str, Any] = arguments.get("event", arguments)
    # What stopped it before or beside the backup itself, such as the timeout, has no stage of its own.
    stage = getattr(error, "stage", "dump")
    reason = str(error) or type(error).__name__
    return BackupFailed(source=asked.get("source", "platform"), stage=stage, reason=reason[:REASON_CHARACTERS])
