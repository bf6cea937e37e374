"""What the platform says of what tasks depend on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime

from carillon.contracts.event import Event


class BreakerChanged(Event):
    """A circuit breaker opened, let a probe through, or closed; said by the platform, once for all workers."""

    type: ClassVar[str] = "carillon.breaker_changed.v1"
    subject_field: ClassVar[str] = "breaker"

    breaker: str
    #: closed, open or half_open.
    state: str
    #: The number of this change, from 1 on: a later one has a larger number, in whatever order they are heard.
    change: int
    changed_at: AwareDatetime
    #: Of one that is open, when the next call may pass.
    retry_at: AwareDatetime | None = None
    #: What failed last, in one line.
    reason: str | None = None
