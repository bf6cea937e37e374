"""When a failed attempt is tried again, and how many retries of a task may begin each second."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from carillon.bounds import LONGEST
from carillon.clock import monotonic
from carillon.errors import Cancel, PermanentError, Snooze

#: A policy beyond this is a loop.
MOST_ATTEMPTS = 1000
#: Errors that say themselves what to do next, so that no rule can be about them.
DECIDED = (PermanentError, Snooze, Cancel)


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
    #: What holds for some types of errors instead, subclasses included; the most specific type wins. `NEVER` is one.
    #: Attempts are counted together, whatever they failed with. Whether a rule is there or not, a `PermanentError` is
    #: never retried.
    rules: Mapping[type[BaseException], Retry] = field(default_factory=dict, hash=False)
    #: So many retries of the task may begin each second, for each worker process; `math.inf` is no limit. What is
    #: beyond waits for the next free moment, at most another `cap`. While a dependency is down for minutes, 20 lets
    #: 5,000 waiting runs ask every 4 minutes, which no dependency notices, and one that is back is not run over. A
    #: task that has more than 20 failures a second on a good day wants a larger number.
    per_second: float = 20.0

    def __post_init__(self) -> None:
        """Refuse a policy that could not be followed."""
        spans = isinstance(self.base, timedelta) and isinstance(self.cap, timedelta)
        counts = isinstance(self.attempts, int) and not isinstance(self.attempts, bool)
        if not (spans and counts):
            message = f"{self!r} cannot be followed: attempts is a whole number, and base and cap are timedeltas"
            raise TypeError(message)
        if not 1 <= self.attempts <= MOST_ATTEMPTS or not timedelta(0) < self.base <= self.cap <= LONGEST:
            message = (
                f"{self!r} cannot be followed: attempts is 1 to {MOST_ATTEMPTS}, and 0 < base <= cap <= "
                f"{LONGEST.days} days"
            )
            raise ValueError(message)
        if isinstance(self.per_second, bool) or not isinstance(self.per_second, int | float) or not self.per_second > 0:
            message = f"{self!r} cannot be followed: per_second is a number above 0, or math.inf for no limit"
            raise ValueError(message)
        for error, rule in self.rules.items():
            _check_rule(error, rule)
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))

    def for_error(self, error: BaseException) -> Retry:
        """The policy that holds for this error: of the most specific of its types that has a rule, or this one."""
        if self.rules:
            for kind in type(error).__mro__:
                if kind in self.rules:
                    return self.rules[kind]
        return self

    def delay(self, attempt: int) -> timedelta | None:
        """How long to wait after this counted attempt (1 is the first) failed; None when none is left."""
        if attempt >= self.attempts:
            return None
        # In seconds, because a timedelta doubled often enough overflows.
        ceiling = min(self.cap.total_seconds(), self.base.total_seconds() * 2.0 ** (attempt - 1))
        return timedelta(seconds=ceiling * random.random())  # noqa: S311 - spreads load, guards nothing

    @property
    def shown(self) -> dict[str, Any]:
        """The policy as the catalogue shows it; durations in seconds, no limit as null."""
        return {
            **_delays(self),
            "retries_per_second": self.per_second if math.isfinite(self.per_second) else None,
            "retry_rules": {_name(error): _delays(rule) for error, rule in self.rules.items()},
        }


#: The policy of what no second attempt can mend: `Retry(rules={ValueError: NEVER})`.
NEVER = Retry(attempts=1)


class Budget:
    """The moments at which retries of one task may begin: so many slots a second, each taken once.

    Slots are reserved ahead on a monotonic clock. One that is far away keeps nobody from an earlier one.
    """

    def __init__(self, policy: Retry, *, clock: Callable[[], float] = monotonic) -> None:
        self._per_second = policy.per_second
        self._longest = policy.cap.total_seconds()
        self._clock = clock
        #: By taken slot, a later one that may be free. Never more than there are retries to come, and as many again.
        self._taken: dict[int, int] = {}
        self._forget_at = 1024

    def reserve(self, delay: timedelta) -> timedelta:
        """The first free moment at or after `delay` from now, which is then taken.

        Where none is free within the policy's cap after it, the retry is put somewhere into the second half of that
        time: then more runs wait than the budget has room for, and they still come evenly, not in a wave.
        """
        if math.isinf(self._per_second):
            return delay
        now, wanted = self._clock(), delay.total_seconds()
        first = math.floor((now + wanted) * self._per_second)
        slot = self._free(first)
        if slot - first > self._longest * self._per_second:
            spread = random.uniform(self._longest / 2, self._longest)  # noqa: S311 - spreads load, guards nothing
            return timedelta(seconds=wanted + spread)
        self._taken[slot] = slot + 1
        self._forget(math.floor(now * self._per_second))
        return timedelta(seconds=max(wanted, slot / self._per_second - now))

    def _free(self, slot: int) -> int:
        """The first free slot from this one on. Those passed are told of it, so that a long row is walked once."""
        passed = []
        while slot in self._taken:
            passed.append(slot)
            slot = self._taken[slot]
        for each in passed:
            self._taken[each] = slot
        return slot

    def _forget(self, before: int) -> None:
        if len(self._taken) < self._forget_at:
            return
        self._taken = {slot: later for slot, later in self._taken.items() if slot >= before}
        self._forget_at = max(1024, 2 * len(self._taken))


def _check_rule(error: object, rule: object) -> None:
    if not isinstance(error, type) or not issubclass(error, BaseException):
        message = f"{error!r} is no type of error; the keys of `rules` are exception classes"
        raise TypeError(message)
    if issubclass(error, DECIDED):
        message = f"{error.__name__} says itself what happens next, so no rule can be about it"
        raise ValueError(message)  # noqa: TRY004 - a type, but of the wrong meaning
    if not isinstance(rule, Retry) or rule.rules:
        message = f"the rule for {error.__name__} must be a Retry without rules of its own, or NEVER"
        raise TypeError(message)


def _delays(policy: Retry) -> dict[str, Any]:
    return {
        "attempts": policy.attempts,
        "retry_base_seconds": policy.base.total_seconds(),
        "retry_cap_seconds": policy.cap.total_seconds(),
    }


def _name(error: type[BaseException]) -> str:
    return error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"
