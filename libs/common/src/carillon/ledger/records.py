"""What goes into the ledger and what comes out of it on the hot path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from carillon.run import Cause


class State(StrEnum):
    """Where a run is in its life."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTIAL = "partial"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will change any more."""
        return self in TERMINAL


TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.PARTIAL})


class Priority(IntEnum):
    """Which of two waiting runs of one domain starts first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be accepted."""

    id: UUID
    domain: str
    task: str
    #: The arguments by name, as JSON text of one object.
    args: str
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = Priority.NORMAL
    #: Not before this moment; None means now.
    run_at: datetime | None = None
    #: Not started after this moment.
    expires_at: datetime | None = None
    idempotency_key: str | None = None
    parent_id: UUID | None = None
    event_id: UUID | None = None
    #: The event answered.
    cause: Cause | None = None
    actor: str = "unknown"
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit: the run's id, and whether this call made it."""

    id: UUID
    created: bool


#: What PostgreSQL's integer can hold, and no less than nothing.
Number = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt of one run on its way to a worker."""

    id: UUID
    attempt: Number
    task: str
    args: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    #: How many earlier attempts the retry policy does not count.
    uncounted: Number = 0
    cause: Cause | None = None
    traceparent: str | None = None
    #: When it was given to the transport, in seconds of the Unix clock.
    given_at: float = 0.0


class Claimed(Delivery):
    """A delivery that came from the ledger itself, which already says `running`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """A CloudEvent to be recorded."""

    #: Derived from source and event_id.
    id: UUID
    event_id: str
    source: str
    type: str
    time: datetime
    #: The data, as JSON text.
    data: str
    subject: str | None = None
    run_id: UUID | None = None
    actor: str = "unknown"
    traceparent: str | None = None
    #: Whether it came from the transport, so that nothing has to be published.
    published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How one attempt ended, and what it says."""

    id: UUID
    attempt: int
    state: State
    #: completed, failed, retried, snoozed or cancelled.
    outcome: str
    #: JSON text, or None.
    result: str | None = None
    error: str | None = None
    #: When the next attempt is due, for `retrying` and `queued`.
    run_at: datetime | None = None
    #: 1 when the policy should not count this attempt.
    uncounted: int = 0
    events: Sequence[NewEvent] = ()
    #: Runs that answer `events`, where the ledger itself carries events.
    answers: Sequence[NewRun] = ()
