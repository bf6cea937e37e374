"""One PostgreSQL tool at work: started without a shell, told its password by a file, ended with all it started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from backup.errors import ToolFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backup.sources import Source

T = TypeVar("T")

#: Variables of ours that a tool may see: where its user's certificates and its temporary files are.
PASSED_ON = ("HOME", "TMPDIR")
#: How long a tool may take to end after it was asked to, in seconds.
GRACE_SECONDS = 5
#: How much of what a tool complained about is read, in bytes.
COMPLAINT_BYTES = 64 * 1024
#: How much of it is told, in characters: the error lines only, as details and contexts quote rows.
TOLD_CHARACTERS = 600


@dataclass
class Child:
    """A started tool, and the way it ended."""

    process: subprocess.Popen[bytes]
    complaints: IO[bytes]
    name: str

    @property
    def output(self) -> IO[bytes]:
        """What the tool writes."""
        if self.process.stdout is None:
            message = f"{self.name} was started without a standard output to read"
            raise RuntimeError(message)
        return self.process.stdout

    @property
    def input(self) -> IO[bytes]:
        """What the tool reads."""
        if self.process.stdin is None:
            message = f"{self.name} was started without a standard input to write"
            raise RuntimeError(message)
        return self.process.stdin

    def require_success(self, tolerated: str | None = None) -> None:
        """Wait for the end of a tool that has nothing left to read or write; raise ToolFailedError if it ended badly.

        An end with errors is let pass where every one of them holds the words `tolerated`.
        """
        code = self.process.wait(GRACE_SECONDS * 12)
        errors = self._errors()
        if code == 0 or (code == 1 and tolerated and errors and all(tolerated in line for line in errors)):
            return
        words = " ".join(errors)[:TOLD_CHARACTERS] or "it said nothing"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        message = f"{self.name} {how}: {words}"
        raise ToolFailedError(message)

    def end(self) -> None:
        """End the tool and whatever it started, politely first: a terminated pg_dump cancels its query."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            os.killpg(self.process.pid, sign)
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def _errors(self) -> list[str]:
        self.complaints.seek(0)
        lines = self.complaints.read(COMPLAINT_BYTES).decode(errors="replace").splitlines()
        return [line for line in lines if " error: " in line]


@contextmanager
def running(source: Source, command: Sequence[str], *, feeds: bool) -> Iterator[Child]:
    """Run a tool against a source's server; it is over, in whatever way, when the block is.

    `feeds` says which end is ours: its standard input, or else its standard output.
    """
    with tempfile.TemporaryDirectory(prefix="carillon-backup-") as folder, tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if feeds else subprocess.PIPE,
            stderr=complaints,
            env=_environment(source, Path(folder)),
            cwd=folder,
            umask=0o077,
            start_new_session=True,
        )
        child = Child(process, complaints, Path(command[0]).name)
        try:
            yield child
        finally:
            child.end()
            _close_pipes(process)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except BrokenPipeError:
            continue


def _environment(source: Source, folder: Path) -> dict[str, str]:
    """Collect what the tool is told. libpq never expands these values into settings, unlike a connection string."""
    told = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    told |= {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "carillon-backup"}
    told |= {"PGHOST": source.host, "PGPORT": str(source.port), "PGUSER": source.user, "PGDATABASE": source.database}
    told["PGPASSFILE"] = str(_password_file(folder, source.password or ""))
    return told if source.sslmode is None else told | {"PGSSLMODE": source.sslmode}


def _password_file(folder: Path, password: str) -> Path:
    path = folder / "passfile"
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(f"*:*:*:*:{escaped}\n" if password else "")
    return path


async def in_thread(child: Child, work: Callable[[], T]) -> T:
    """Do blocking work with a child in a thread; a cancelled caller ends the child, and waits until the work is over.

    So nothing is written any more once the caller has gone on, and an upload is aborted rather than forgotten.
    """

    def work_to_the_end() -> T:
        try:
            return work()
        finally:
            child.end()

    thread = asyncio.ensure_future(asyncio.to_thread(work_to_the_end))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        ending = asyncio.ensure_future(asyncio.to_thread(child.end))
        await asyncio.wait({thread, ending}, timeout=GRACE_SECONDS * 6)
        if thread.done() and not thread.cancelled():
            thread.exception()
        raise
