"""Child processes that never outlive the benchmark, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process, create_subprocess_exec
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bench.errors import BenchError, StuckError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

#: How long a process may take to stop before it is killed, in seconds.
STOP_SECONDS = 8.0
#: How much of a failed process's output is shown, in bytes.
SHOWN_BYTES = 2_000


async def output_of(
    *argv: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, given: str = "", limit: float = 60
) -> str:
    """Run a command to its end, with `given` as its input, and give back what it wrote to standard output.

    Raises `BenchError` with the end of its error output when it fails, `StuckError` when it outlasts `limit` seconds.
    """
    process = await create_subprocess_exec(*argv, env=_with(env), cwd=cwd, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        written, complaint = await asyncio.wait_for(process.communicate(given.encode()), limit)
    except TimeoutError:
        message = f"`{' '.join(argv[:3])} ...` did not end within {limit:.0f} s"
        raise StuckError(message) from None
    finally:
        await _stop(process)
    if process.returncode:
        message = f"`{' '.join(argv[:3])} ...` failed: {complaint.decode(errors='replace')[-SHOWN_BYTES:].strip()}"
        raise BenchError(message)
    return written.decode()


@asynccontextmanager
async def running(
    *argv: str, env: Mapping[str, str], cwd: Path, log: Path, patience: float = STOP_SECONDS
) -> AsyncIterator[Process]:
    """A process with its output in `log`; terminated when the block ends, and killed with its children after that.

    `patience` is how many seconds it has to stop by itself.
    """
    with log.open("wb") as sink:
        process = await create_subprocess_exec(
            *argv, env=_with(env), cwd=cwd, stdin=DEVNULL, stdout=sink, stderr=STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        await _stop(process, patience)
        _kill_group(process.pid)


async def wait_until(
    happened: Callable[[], Awaitable[bool]], *, what: str, limit: float, process: Process, log: Path
) -> None:
    """Ask every 100 ms until it happened; raises `StuckError` with the worker's last words when it does not."""
    deadline = time.monotonic() + limit
    while not await happened():
        ended = process.returncode is not None
        if ended or time.monotonic() > deadline:
            message = f"{what}: {'the worker ended early' if ended else f'not within {limit:.0f} s'}{_tail(log)}"
            raise StuckError(message)
        await asyncio.sleep(0.1)


def _with(env: Mapping[str, str] | None) -> dict[str, str]:
    """Our own environment with these changes; an empty value takes the variable away."""
    return {name: value for name, value in {**os.environ, **(env or {})}.items() if value}


def _tail(log: Path) -> str:
    return "\n" + log.read_bytes()[-SHOWN_BYTES:].decode(errors="replace")


async def _stop(process: Process, patience: float = STOP_SECONDS) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), patience)
    except TimeoutError:
        process.kill()
        await process.wait()


def _kill_group(group: int) -> None:
    # A prefork worker that was killed leaves children; they share the session that was made for it.
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
