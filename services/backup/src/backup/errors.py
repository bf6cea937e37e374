"""Every error of backup. Each says what to do next.

```
PermanentError
├── UnknownSourceError      a source that is not configured was named
├── SourceRefusedError      the source's server refused the user, the password, the database or a right
├── MissingToolError        no pg_dump new enough for the server was found
├── DamagedBackupError      the stored bytes are not the bytes that were written
└── UnequalRestoreError     the restored copy differs from what was dumped
TransientError
├── SourceUnreachableError  the source's server did not answer
└── ToolFailedError         pg_dump or pg_restore ended badly
Snooze
└── AlreadyAtItError        another worker still holds this very backup
```
"""

from __future__ import annotations

from carillon.errors import PermanentError, Snooze, TransientError


class UnknownSourceError(PermanentError):
    """Name one of the configured sources, or add it to BACKUP_SOURCES."""


class SourceRefusedError(PermanentError):
    """Correct the source's connection string, or grant its user what the message names."""


class MissingToolError(PermanentError):
    """Install the PostgreSQL client the message names, or say where it is with BACKUP_TOOLS_FOLDER."""


class DamagedBackupError(PermanentError):
    """The storage gave back other bytes than it was given: look at the storage, then take a new backup."""


class UnequalRestoreError(PermanentError):
    """The dump restores to something else than its source held: do not rely on it, and look at the tables named."""


class SourceUnreachableError(TransientError):
    """The source's server did not answer in time, or ended the connection."""


class ToolFailedError(TransientError):
    """A PostgreSQL tool ended badly; its own words are in the message."""


class AlreadyAtItError(Snooze):
    """Another worker is still at this backup; look again when it should be done."""
