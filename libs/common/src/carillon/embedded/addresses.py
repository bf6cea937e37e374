"""Where the servers are that another process runs; read by every command, so it imports no driver."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from carillon.embedded.errors import EmbeddedServerError
from carillon.embedded.folder import StateFolder

if TYPE_CHECKING:
    from pathlib import Path

#: The superuser of our server: the backup's restore proof has to create databases.
USER: Final = "carillon"
DATABASE: Final = "carillon"


def postgres_url(password: str, port: int, database: str = DATABASE) -> str:
    """Where a database of our server is."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{database}"


def valkey_url(password: str, port: int) -> str:
    """Where database 0 of our server is."""
    return f"redis://:{password}@127.0.0.1:{port}/0"


def noted_addresses(home: Path) -> dict[str, str]:
    """`DATABASE_URL` and `REDIS_URL` of the servers that another process runs in `home`; empty where there are none."""
    folder = StateFolder(home)
    notes = folder.notes()
    addresses = {}
    with suppress(EmbeddedServerError, OSError):
        if port := notes.get("postgres_port"):
            addresses["DATABASE_URL"] = postgres_url(folder.password("postgres", may_create=False), int(port))
        if port := notes.get("valkey_port"):
            addresses["REDIS_URL"] = valkey_url(folder.password("valkey", may_create=False), int(port))
    return addresses
