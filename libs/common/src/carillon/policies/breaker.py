"""Declaring a circuit breaker: after how many failures a dependency is left alone, and for how long."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

from carillon.errors import Cancel, ConfigurationError, PermanentError, Snooze
from carillon.policies.bounds import check_errors, check_name, check_span

#: Failures are remembered by their moments, and each is a number in a row.
MOST_FAILURES = 1_000
#: What says what to do with the run, and nothing of the dependency.
INSTRUCTIONS = (Cancel, Snooze)


@dataclass(frozen=True, slots=True)
class Breaker:
    """A circuit breaker that all workers share, by its name.

    ```python
    PAYMENTS = Breaker("payments", failures=5, within=timedelta(minutes=1), pause=timedelta(seconds=30))

    async with policies.breaker(PAYMENTS):
        await client.charge(order)
    ```

    Closed, it lets every call pass. After `failures` calls that failed `within` such a time, wherever they were made,
    it is open: calls are refused with `CircuitOpenError`, for `pause`. Then it is half open: exactly one call passes,
    the probe. Where that goes well the breaker closes, and where it fails it is open again, for twice as long as before
    and at most `longest_pause`. A probe that is not heard of is given up five seconds after its `timeout`; then the
    next call is the probe.

    What fails counts for each call, whatever becomes of the run. The same name is the same breaker in all services;
    give it the same numbers, from a module that they share. Names come from a closed set: each is a row and three
    series of `carillon_breaker_state`.
    """

    name: str
    _: KW_ONLY
    failures: int = 5
    within: timedelta = timedelta(minutes=1)
    pause: timedelta = timedelta(seconds=30)
    longest_pause: timedelta = timedelta(minutes=10)
    #: A call that takes longer is ended with a `TimeoutError`, and counts. Less than the task's own timeout, which
    #: cancels the code: of a call that was cancelled nobody knows whether it failed.
    timeout: timedelta = timedelta(seconds=30)
    #: These errors count as failures, subclasses included, but for those in `ignores`. Any other is an answer: the
    #: dependency is there. `Snooze` and `Cancel` say nothing of it, nor does a cancellation.
    counts: tuple[type[Exception], ...] = (Exception,)
    ignores: tuple[type[Exception], ...] = (PermanentError,)

    def __post_init__(self) -> None:
        """Refuse a breaker that could not be kept; raises `ConfigurationError`."""
        check_name("breaker", self.name)
        whose = f"the breaker {self.name}"
        if type(self.failures) is not int or not 1 <= self.failures <= MOST_FAILURES:
            message = f"{whose} has failures={self.failures!r}; it is a whole number from 1 to {MOST_FAILURES:,}"
            raise ConfigurationError(message)
        for name in ("within", "pause", "longest_pause", "timeout"):
            check_span(whose, name, getattr(self, name))
        if self.longest_pause < self.pause:
            message = f"{whose} has longest_pause={self.longest_pause}; it must be at least its pause, {self.pause}"
            raise ConfigurationError(message)
        check_errors(whose, "counts", self.counts)
        check_errors(whose, "ignores", self.ignores)

    def is_failure(self, error: BaseException) -> bool:
        """Whether an error out of a call counts."""
        return isinstance(error, self.counts) and not isinstance(error, (*self.ignores, *INSTRUCTIONS))

    def is_answer(self, error: BaseException) -> bool:
        """Whether an error out of a call shows that the dependency is there."""
        return isinstance(error, Exception) and not isinstance(error, INSTRUCTIONS) and not self.is_failure(error)
