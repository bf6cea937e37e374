"""What a task returns that has done a part of its work, and may leave it at that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Partial(Generic[Value]):
    """Returned by a task, it ends the run in the state `partial`: `return Partial({"sent": 9}, reason="1 bounced")`.

    The value is the run's result, as if it had been returned itself; whoever waits for it gets it, and no error. The
    run is not retried, and whoever needs it goes on; it can be run again by hand.
    """

    value: Value
    #: Why it is not the whole, in a sentence for people; the last line of the run's log.
    reason: str
