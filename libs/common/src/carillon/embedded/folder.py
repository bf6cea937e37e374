"""The state folder (`CARILLON_HOME`): its lock, its passwords, and the notes by which the next start finds things."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from carillon.embedded.errors import EmbeddedServerError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

#: Below this many free bytes PostgreSQL would stop in the middle of its work.
LEAST_FREE_BYTES = 200 * 1024 * 1024


class StateFolder:
    """One folder, held by one process at a time."""

    def __init__(self, path: Path, *, least_free_bytes: int = LEAST_FREE_BYTES) -> None:
        self.path = path.expanduser().absolute()
        self._least_free_bytes = least_free_bytes
        self._lock = -1

    def __enter__(self) -> Self:
        self._create()
        self._take_lock()
        try:
            self._check_disk()
        except EmbeddedServerError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the next process have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _create(self) -> None:
        try:
            # Root's folder can be passed through: PostgreSQL is then another user. Every secret in it is 0600.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            message = f"{self.path} is not a folder; remove it or set CARILLON_HOME to another place."
            raise EmbeddedServerError(message) from None
        except OSError as error:
            message = (
                f"The folder {self.path} cannot be written ({error.strerror}); set CARILLON_HOME to another place."
            )
            raise EmbeddedServerError(message) from error
        if not os.access(self.path, os.W_OK | os.X_OK) or self.path.stat().st_uid != os.geteuid():
            message = (
                f"The folder {self.path} belongs to another user; be that user or set CARILLON_HOME to another place."
            )
            raise EmbeddedServerError(message)

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._lock, 20).decode(errors="replace").strip() or "unknown"
            self.close()
            message = (
                f"Another Carillon (process {holder}) already runs on {self.path}; "
                "stop it, or set CARILLON_HOME and CARILLON_PORT to run a second one."
            )
            raise EmbeddedServerError(message) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < self._least_free_bytes:
            message = (
                f"The disk that holds {self.path} is full: {free // 2**20} MiB are free and "
                f"{self._least_free_bytes // 2**20} MiB are needed; free some, or set CARILLON_HOME to another disk."
            )
            raise EmbeddedServerError(message)

    def log(self, name: str) -> Path:
        """Where the server `name` writes what it has to say."""
        return self.path / "logs" / f"{name}.log"

    def password(self, server: str, *, may_create: bool) -> str:
        """The password of one of our servers; kept in a file that only its owner reads."""
        file = self.path / f"{server}.password"
        with suppress(FileNotFoundError):
            return file.read_text().strip()
        if not may_create:
            message = f"{file} is missing; bring it back, or move {self.path} away to begin with an empty one."
            raise EmbeddedServerError(message)
        password = secrets.token_urlsafe(24)
        write_private(file, password)
        return password

    def notes(self) -> dict[str, str]:
        """What earlier starts wrote down: ports, process ids, places."""
        try:
            content: object = json.loads((self.path / "servers.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {str(key): str(value) for key, value in content.items()} if isinstance(content, dict) else {}

    def note(self, **facts: str | int) -> None:
        """Write facts down for the next start."""
        notes = self.notes() | {key: str(value) for key, value in facts.items()}
        write_private(self.path / "servers.json", json.dumps(notes, indent=1))


def write_private(file: Path, content: str) -> None:
    """Replace `file` as a whole, readable by its owner only."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(content)
    fresh.replace(file)
