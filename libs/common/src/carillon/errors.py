"""Every error Carillon raises. Each says what to do next.

```
CarillonError
├── TransientError        the world was not ready: the attempt is retried by the owner's policy
│   ├── Hung              nothing was heard of the attempt for longer than its task allows
│   ├── ProcessLost       the child process in which the code ran has died
│   ├── CircuitOpenError  a circuit breaker leaves alone what the code wants to call
│   ├── EffectInFlightError  an effect with this key is under way elsewhere
│   ├── NothingAnsweredError  no source of a fallback answers, and nothing was kept
│   ├── NoTurnError       the next turn of a throttle is too far away to be waited for
│   ├── NoRoomError       no place of a bulkhead was free in time
│   └── BatchFailedError  too few items of a batch succeeded, or one that had to has not
├── PermanentError        no retry can help: the run fails at once and waits for a person
│   ├── UnknownTaskError
│   ├── InvalidArgumentsError
│   │   ├── UnfitArgumentsError  of a run that is submitted again by hand; each fault is named
│   │   ├── InvalidOptionError  an option of a submit says what it may not say
│   │   └── UnknownNeedError  a run was to wait for others that nobody knows
│   ├── EffectConflictError  the key of an effect was used before with other arguments
│   ├── DeadlineExceeded  the moment has passed by which the run had to be ended
│   ├── OutsideWorkflowError  a workflow's code did what only a task may, or a task what only a workflow may
│   ├── DivergedError     a workflow's code does not do again what is recorded of it
│   ├── StuckError        a workflow waits for nothing that could happen
│   ├── StepFailedError   a step of a workflow failed
│   │   └── StepCancelledError  or was cancelled
│   └── FanInError        more members of a fan-in failed than its policy allows
├── Snooze                not now: run again later, without counting an attempt
├── Cancel                the work is no longer wanted: the run ends cancelled
│   └── Cancelled         somebody else said so
├── NotConnectedError     a task was submitted before the platform was connected
├── IdempotencyConflictError
├── SearchTooWideError    a question to the past that would take too long; the sentence says how to narrow it
├── UniqueConflictError   a run with this unique key is there, and the submit was to be refused then
├── NotFoundError         there is no run, message or group of this name (any more)
├── RunStateError         the state of a run forbids what was asked
├── ReplayConflictError   the run was run again before, with other arguments than those that are wanted now
├── PlatformUnavailableError
└── ConfigurationError
```

`kiq` and `kiq_many` raise Taskiq's `SendTaskError` from these; `kiq_many` its subclass
`carillon.many.NotAllAcceptedError`, which has what was accepted before.

`Stopped` stands apart, as `asyncio.CancelledError` does: it passes through `except Exception`.

Any other exception out of a task is a bug: retried by policy, then buried, loudly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

#: What a submit brought whose idempotency key was used before, in words; see `carillon.ledger.records.NewRun.covered`.
OTHER_WORK = "other arguments, or another after, callback_url or unique key"
#: Characters of a value that a refusal tells.
MOST_TOLD = 100


class CarillonError(Exception):
    """Something Carillon noticed itself."""


class TransientError(CarillonError):
    """The world was not ready; the same call may succeed later.

    `retry_after` overrides the policy's next delay where the other side named one.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Hung(TransientError):  # noqa: N818 - what it is, as people say it
    """Nothing was heard of an attempt for as long as its task's `silent_after`; it was stopped."""


class ProcessLost(TransientError):  # noqa: N818 - as WorkerLost, which the ledger says of a worker
    """The child process of an attempt died; the message has the signal or the exit code. The worker goes on."""


class CircuitOpenError(TransientError):
    """A circuit breaker refuses the call; `retry_after` is when it may let one through again.

    Each refusal is an attempt of its run, and attempts count together, whatever they failed with: a task whose
    dependency may be away for long wants many of them, such as `Retry(attempts=100)`. How often the dependency is
    really asked is for the breaker to say.
    """


class EffectInFlightError(TransientError):
    """Somebody does this effect now, or died of it; `retry_after` is when that is known."""


class NothingAnsweredError(TransientError):
    """No source of a fallback answers, and no last good value is kept; `retry_after` is the soonest that one names."""


class NoTurnError(TransientError):
    """The next turn of a throttle is too far away to be waited for; `retry_after` is when it comes."""


class NoRoomError(TransientError):
    """No place of a bulkhead was free in time."""


class BatchFailedError(TransientError):
    """Too few items of a batch succeeded, or one that had to has not; the sentence counts them."""


class PermanentError(CarillonError):
    """Trying again cannot help; a person or a new version has to."""

    #: Whether an attempt that ends with this has done nothing that a saga would have to take back.
    leaves_nothing = True


class UnknownTaskError(PermanentError):
    """No such task is registered with this domain."""


class InvalidArgumentsError(PermanentError):
    """The arguments do not fit the task's schema."""


class Fault(NamedTuple):
    """One thing wrong with a value. `pointer` is where: a JSON pointer."""

    pointer: str
    detail: str


class UnfitArgumentsError(InvalidArgumentsError):
    """The arguments do not fit the schema that the task's domain registered; `faults` says where and why."""

    def __init__(self, task: str, faults: Sequence[Fault]) -> None:
        told = "; ".join(f"{fault.pointer} {fault.detail}" for fault in faults[:3])
        super().__init__(f"the arguments do not fit {task}: {told}")
        self.faults = tuple(faults)


class InvalidOptionError(InvalidArgumentsError):
    """An option says how to run, and says what it may not say.

    `option` names it, with dots for what is inside, such as `unique.until`; `must` says what it has to do or be.
    """

    def __init__(self, option: str, must: str, *given: object) -> None:
        """Refuse `option`; what was `given` is told too, where that is no secret."""
        told = "".join(f", and not {repr(value)[:MOST_TOLD]}" for value in given)
        super().__init__(f"{option} must {must}{told}")
        self.option = option
        self.must = must
        self.given = given


class UnknownNeedError(InvalidArgumentsError):
    """A run was to wait for others that nobody knows; `positions` as of `IdempotencyConflictError`."""

    def __init__(self, message: str, *, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = tuple(positions)


class EffectConflictError(PermanentError):
    """The key of an effect was used before with other arguments; the sentence says what to do."""


class DeadlineExceeded(PermanentError):  # noqa: N818 - the word that people know it by
    """The run's deadline has passed, or would have before its next attempt."""

    leaves_nothing = False


class OutsideWorkflowError(PermanentError):
    """The code of a workflow did what only a task may, or a task what only a workflow may; the message says which."""

    leaves_nothing = False


class DivergedError(PermanentError):
    """The code of a workflow does not do again what is recorded of it; the message names the step."""

    leaves_nothing = False


class StuckError(PermanentError):
    """A workflow waits for nothing that could happen: no step, no moment, no event and no decision."""

    leaves_nothing = False


class StepFailedError(PermanentError):
    """A step of a workflow failed.

    `step` is what it was called, `run` the id of its run, `kind` the type of the error that the run ended with, and
    `error` all that is kept of that. `may_have_effect` is false where no attempt began, or where the first and only one
    raised a `PermanentError`, which says that nothing was done.
    """

    leaves_nothing = False

    def __init__(self, step: str, run: UUID | None, error: Mapping[str, Any], *, may_have_effect: bool) -> None:
        self.step, self.run, self.error = step, run, dict(error)
        self.kind = str(error.get("type", "unknown"))
        self.may_have_effect = may_have_effect
        super().__init__(f"the step {step} {self._how}: {self.kind}: {error.get('message', 'no reason was recorded')}")

    @property
    def _how(self) -> str:
        return "failed"


class StepCancelledError(StepFailedError):
    """A step of a workflow was cancelled, or expired before it was started."""

    @property
    def _how(self) -> str:
        return "was cancelled"


class FanInError(PermanentError):
    """More members of a fan-in failed than its policy allows; `batch` has what became of each."""

    leaves_nothing = False

    def __init__(self, message: str, batch: object) -> None:
        super().__init__(message)
        self.batch = batch


class Snooze(CarillonError):  # noqa: N818 - an instruction to the worker, not a failure
    """Run this again after `delay`, a timedelta or seconds, of at most 30 days; the attempt does not count.

    Raises `InvalidArgumentsError` for anything else, and for less than nothing.
    """

    def __init__(self, delay: timedelta | float, reason: str = "snoozed") -> None:
        super().__init__(reason)
        self.delay = delay if isinstance(delay, timedelta) else _seconds(delay)
        if self.delay < timedelta(0):
            raise InvalidArgumentsError(f"a run cannot be snoozed into the past, by {self.delay}")


def _seconds(number: float) -> timedelta:
    try:
        return timedelta(seconds=number)
    except (TypeError, ValueError, OverflowError):
        message = f"Snooze takes a timedelta, or seconds, and not {str(number)[:MOST_TOLD]!r}"
        raise InvalidArgumentsError(message) from None


class Cancel(CarillonError):  # noqa: N818 - an instruction to the worker, not a failure
    """End this run as cancelled, with the message as the reason."""


class Cancelled(Cancel):
    """Somebody cancelled this run while it executed; the message is their reason."""


class Stopped(BaseException):
    """The attempt is to end now, and its code may clean up: out of `run.check()`, and at any line of a child process.

    Let it through. What the run ends with is decided by why it was stopped, not by this.
    """


class NotConnectedError(CarillonError):
    """A task was submitted before its domain was connected to a platform."""


class IdempotencyConflictError(CarillonError):
    """The idempotency key was used before with other arguments, or another `after`, `callback_url` or unique key.

    `positions` says which of several runs that were submitted together it is, counted from 0.
    """

    def __init__(self, message: str, *, positions: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.positions = tuple(positions)


class SearchTooWideError(CarillonError):
    """The history was asked for more than it can answer in the time that it has."""


class UniqueConflictError(CarillonError):
    """A run with the same unique key keeps this one out; `run` is its id.

    `positions` says which of several runs that were submitted together are kept out, counted from 0; `run` then is what
    keeps out the first of them.
    """

    def __init__(self, message: str, *, run: UUID, positions: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.run = run
        self.positions = tuple(positions)


class NotFoundError(CarillonError):
    """Nothing has this id or name, or nothing has it any more."""


class RunStateError(CarillonError):
    """What was asked cannot be done to a run, or to a dead letter, as it is; the sentence says what can."""


class ReplayConflictError(CarillonError):
    """A run was run again before, with other arguments, and that replay lives or went well; `run` is its id."""

    def __init__(self, run: UUID, state: str) -> None:
        advice = "submit its task anew if these are wanted too" if state == "completed" else "cancel that one first"
        super().__init__(f"the run {run} repeats it already, with other arguments, and is {state}; {advice}")
        self.run = run


class PlatformUnavailableError(CarillonError):
    """PostgreSQL did not take the write in time; nothing was accepted."""


class ConfigurationError(CarillonError):
    """A setting or declaration is wrong; the sentence says which and how to mend it."""
