"""A child process that never outlives this one, is waited for with a deadline, and is stopped step by step."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carillon.embedded.account import Account

#: How often a state that sends no signal is looked at, in seconds.
POLL = 0.02
#: A log larger than this, in bytes, begins anew at the next start.
LOG_LIMIT = 10_000_000

GUARD = Path(__file__).with_name("guard.py")


@cache
def _spawner() -> ThreadPoolExecutor:
    """The one thread that starts children: the kernel ends a guarded child with the thread that started it."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="carillon-spawner")


class Child:
    """A running program, its log, and the way to end it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log
        self._log_start = log_start

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What the program ended with, or None while it runs."""
        return self._process.poll()

    def log_text(self, limit: int = 20_000) -> str:
        """What the program wrote since this start, at most the last `limit` bytes."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - limit))
            return log.read().decode(errors="replace")

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn, waiting its seconds for the end; SIGKILL is always the last."""
        await asyncio.to_thread(self.stop_now, *steps)

    def stop_now(self, *steps: tuple[signal.Signals, float]) -> None:
        """The same as `stop`, for callers without an event loop."""
        for number, seconds in (*steps, (signal.SIGKILL, 5.0)):
            if not self.alive:
                return
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)


def guarded(
    command: Sequence[str | Path], death_signal: signal.Signals = signal.SIGTERM, account: Account | None = None
) -> list[str]:
    """`command` such that it runs as `account` and ends when the thread that starts it ends."""
    who = ("-", "-") if account is None else (str(account.uid), str(account.gid))
    words = [sys.executable, "-I", "-S", GUARD, str(os.getpid()), str(int(death_signal)), *who, *command]
    return [str(word) for word in words]


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    death_signal: signal.Signals = signal.SIGTERM,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> Child:
    """Start `command` so that it ends when this process ends, however that ends; `stdin` must fit a pipe (64 KiB)."""
    words = guarded(command, death_signal, account)
    process, log_start = _spawner().submit(_spawn, words, log, env, cwd or Path("/")).result()
    if process.stdin is not None:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(stdin)
    return Child(name, process, log, log_start)


def _spawn(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None, cwd: Path
) -> tuple[subprocess.Popen[bytes], int]:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.write_bytes(b"")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=env, cwd=cwd, start_new_session=True
        )
        return process, output.tell()


def free_port(preferred: int | None = None) -> int:
    """`preferred` when nobody listens there, else a port the kernel calls free; both on the loopback."""
    for port in (preferred or 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    message = "the loopback address 127.0.0.1 has no free port"
    raise OSError(message)


def command_line(pid: int) -> str:
    """The words a process was started with; empty when there is no such process."""
    if sys.platform == "linux":
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""
    shown = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()


def end_leftover(pid: int, mark: str, *steps: tuple[signal.Signals, float]) -> bool:
    """End a server that a killed run left behind; `mark` in its command line is the proof that it is ours."""
    if mark not in command_line(pid):
        return False
    for number, seconds in (*steps, (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while mark in command_line(pid) and time.monotonic() < deadline:
            time.sleep(POLL)
    return mark not in command_line(pid)
