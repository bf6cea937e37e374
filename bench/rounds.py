"""Measuring systems against each other: a first try to find the size, then interleaved rounds, medians and ratios."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.system import Measured, System

#: What one measurement should last, in seconds: long enough for steady state, short enough for five rounds.
AIM_SECONDS = 4.0
#: Tasks of the first try, and the least of the sizes derived from it.
FIRST_TRY = 1_000
SMALLEST = 500


@dataclass
class Outcome:
    """The rounds of each system, by its name."""

    sizes: dict[str, int] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """The system's median rate."""
        return median(self.rates[name])

    def ratios(self, ours: str, theirs: str) -> list[float]:
        """Ours over theirs, round by round: neighbours in time share whatever else the machine was doing."""
        return [a / b for a, b in zip(self.rates[ours], self.rates[theirs], strict=True)]


async def compare(
    systems: Sequence[System], rounds: int, budget: float, say: Callable[[str], None], smallest: int = SMALLEST
) -> Outcome:
    """Run up to `rounds` rounds of A B C, A B C; after three, stop early when `budget` seconds are used up.

    Each system works off what lasts about four seconds, and at least `smallest` tasks.
    """
    deadline = time.monotonic() + budget
    outcome = Outcome()
    for system in systems:
        tried = await system.measure(FIRST_TRY)
        outcome.sizes[system.name] = _size(tried, smallest, system.largest)
        outcome.rates[system.name] = []
        say(f"first try   {system.name:<40} {tried.rate:>8.0f}/s")
    for number in range(1, rounds + 1):
        if number > min(3, rounds) and time.monotonic() > deadline:
            break
        say(f"round {number}")
        await _round(systems, outcome, say)
    return outcome


async def _round(systems: Sequence[System], outcome: Outcome, say: Callable[[str], None]) -> None:
    for system in systems:
        measured = await system.measure(outcome.sizes[system.name])
        outcome.rates[system.name].append(measured.rate)
        say(f"{system.name:<40} {measured.rate:>8.0f}/s  ({measured.count} in {measured.seconds:.1f} s)")


def _size(tried: Measured, smallest: int, largest: int) -> int:
    return max(smallest, min(largest, int(tried.rate * AIM_SECONDS)))
