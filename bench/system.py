"""What is measured: a task system that can work off N no-op tasks, and what one such measurement says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

#: Deliveries that may wait unacknowledged in a worker, the same for every system.
PREFETCH = 200
#: The most tasks of one measurement, where a system has no reason for less.
LARGEST = 60_000
#: Steps of a chain.
CHAIN = 10
#: Steps of a workflow that begins them all at once, and gathers what they return.
FAN_OUT = 1_000
#: The longest one measurement may take, in seconds.
MEASURE_SECONDS = 60.0


@dataclass(frozen=True)
class Measured:
    """How long `count` executions took, from the first completion to the last."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Executions per second."""
        return (self.count - 1) / self.seconds


class System(Protocol):
    """One way of executing tasks."""

    name: str
    #: The most tasks of one measurement.
    largest: int

    async def measure(self, count: int) -> Measured:
        """Queue `count` no-op tasks, then start one worker process, and say how long it took without the start-up."""
        ...
