"""When a failed attempt is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

#: A policy beyond this is a loop.
MOST_ATTEMPTS = 1000


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy: exponential backoff with full jitter and a cap.

    The delay before attempt n+1 is uniform in [0, min(cap, base * 2**(n-1))], the "full jitter" of AWS's
    "Exponential Backoff And Jitter" (2015): it spreads a crowd of failures evenly instead of in waves.
    """

    #: Executions in all, the first included; 1 means never retry.
    attempts: int = 5
    #: The ceiling of the first delay; it doubles with every attempt, up to `cap`.
    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        """Refuse a policy that could not be followed."""
        if not 1 <= self.attempts <= MOST_ATTEMPTS or self.base <= timedelta(0) or self.cap < self.base:
            message = f"{self!r} cannot be followed: attempts is 1 to {MOST_ATTEMPTS}, and 0 < base <= cap"
            raise ValueError(message)

    def delay(self, attempt: int) -> timedelta | None:
        """How long to wait after this counted attempt (1 is the first) failed; None when none is left."""
        if attempt >= self.attempts:
            return None
        # In seconds, because a timedelta doubled often enough overflows.
        ceiling = min(self.cap.total_seconds(), self.base.total_seconds() * 2.0 ** (attempt - 1))
        return timedelta(seconds=ceiling * random.random())  # noqa: S311 - spreads load, guards nothing
