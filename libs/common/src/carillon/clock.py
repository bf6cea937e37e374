"""What time it is. Whatever decides or records by the time asks here, so that a rehearsal can hold the clock.

`carillon.testing.Rehearsal` puts a clock of its own here for as long as it lasts. Tasks that ask here too, and not
`datetime.now`, see that clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Something that knows the time."""

    def now(self) -> datetime:
        """This moment, in UTC."""

    def monotonic(self) -> float:
        """Seconds that only grow, from wherever they began."""


class _Machine:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


_MACHINE = _Machine()
_clock: Clock = _MACHINE


def now() -> datetime:
    """This moment, in UTC."""
    return _clock.now()


def monotonic() -> float:
    """Seconds that only grow, from wherever they began."""
    return _clock.monotonic()


@contextmanager
def replaced_by(clock: Clock) -> Iterator[None]:
    """Ask another clock until the block ends, in the whole process; raises `RuntimeError` inside of another block."""
    global _clock  # noqa: PLW0603 - there is one time for all threads and tasks of a process
    if _clock is not _MACHINE:
        message = "the clock is held already: one rehearsal at a time in one process"
        raise RuntimeError(message)
    kept, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = kept
