"""The command `carillon`, run for real in folders and on ports of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest

from carillon.embedded import process

DEADLINE = 90.0
CARILLON = Path(sys.executable).with_name("carillon")
SERVERS = ("CARILLON_", "DATABASE_URL", "REDIS_URL", "RABBIT_", "STORAGE_URL", "GATEWAY_", "NOTIFICATIONS_", "CI")


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Place:
    """A folder and a port in which commands run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = process.free_port()
        own = {name: value for name, value in os.environ.items() if not name.startswith(SERVERS)}
        self.env = own | {"CARILLON_HOME": str(home), "CARILLON_PORT": str(self.port)}

    def command(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CARILLON, *words], env=self.env | env, capture_output=True, text=True, check=False, timeout=DEADLINE
        )


class RunningUp:
    """`carillon up` as a process of its own."""

    def __init__(self, place: Place, out: Path) -> None:
        self.place = place
        self._out = out
        with out.open("wb") as opened:
            self.process = subprocess.Popen([CARILLON, "up"], env=place.env, stdout=opened, stderr=opened)
        try:
            self.said("Carillon is up")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def text(self) -> str:
        return self._out.read_text()

    def said(self, words: str) -> None:
        eventually(lambda: words in self.text or self.process.poll() is not None, f"{words!r} in:\n{self.text}")
        assert words in self.text, self.text

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, words: str) -> psutil.Process:
        return next(child for child in self.descendants() if words in _line(child))

    def has(self, words: str) -> None:
        """Wait for a descendant with these words in its command line."""
        eventually(lambda: any(words in line for line in map(_line, self.descendants())), f"no process {words!r}")

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def running(place: Place, out: Path) -> Iterator[RunningUp]:
    up = RunningUp(place, out)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.end()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    # Run by root, PostgreSQL is another user, and pytest's own folders are closed to it.
    with tempfile.TemporaryDirectory(prefix="carillon-up-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Place(Path(folder) / "state")


@pytest.fixture(scope="module")
def up(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningUp]:
    with running(place, tmp_path_factory.mktemp("log") / "up.log") as started:
        yield started


@pytest.fixture
def start(place: Place, tmp_path: Path) -> Callable[[], AbstractContextManager[RunningUp]]:
    """Starts the platform once more in the same place."""
    return lambda: running(place, tmp_path / "up.log")
