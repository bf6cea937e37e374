"""What goes into the ledger and what comes out of it on the hot path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from hashlib import sha256
from typing import Annotated, Any, Protocol, Self, TypedDict, Unpack, get_args
from uuid import UUID

import orjson
from pydantic import Field

from carillon.bounds import OnConflict, Otherwise, Until, When, check_key, check_span, check_word, needs_of
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
class Unique:
    """One run of a task at a time, or one in a while, for a key; without a key, for the same arguments.

    `until` says for how long a run keeps others with its key out: while it waits (`started`), or until it has ended
    (`ended`). `window` keeps them out for that long after it was accepted, whatever became of it; it does not reach
    further than ended runs are kept. What is kept out becomes no run of its own: with `on_conflict="keep"` the submit
    answers with the run that is there, and with `"reject"` it raises `UniqueConflictError`. `"replace"` lets the new
    run take the place of one that still waits; one that executes already stays, and keeps it out.
    """

    key: str | None = None
    until: Until = "ended"
    window: timedelta | None = None
    on_conflict: OnConflict = "keep"

    def __post_init__(self) -> None:
        """Refuse what could not be kept; raises `InvalidOptionError`."""
        if self.key is not None:
            check_key("unique.key", self.key)
        check_word("unique.until", self.until, get_args(Until))
        if self.window is not None:
            check_span("unique.window", self.window)
        check_word("unique.on_conflict", self.on_conflict, get_args(OnConflict))

    def key_for(self, args: str) -> str:
        """The key of a run with these arguments, which are the JSON text of an object."""
        if self.key is not None:
            return self.key
        return f"args {sha256(orjson.dumps(orjson.loads(args), option=orjson.OPT_SORT_KEYS)).hexdigest()}"


class SubmittedTask(Protocol):
    """What `kiq` gives back."""

    task_id: str


class AfterPolicy(TypedDict, total=False):
    """When a run that waits for others goes on."""

    when: When
    otherwise: Otherwise
    delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """The runs that a run waits for, and when it goes on.

    `when` is `succeeded` (all of them completed), `ended` (all of them ended, however) or `any` (the first that
    completed). Where that cannot come true any more the run is cancelled, or with `otherwise="run"` goes on when all of
    them have ended.
    """

    #: 1 to 1,000 ids.
    runs: Sequence[UUID]
    when: When = "succeeded"
    otherwise: Otherwise = "cancel"
    #: How long it still waits once it may go, at most a year.
    delay: timedelta = timedelta(0)

    @classmethod
    def of(cls, *tasks: SubmittedTask, **policy: Unpack[AfterPolicy]) -> Self:
        """After what `kiq` gave back: `After.of(first, second, when="ended")`."""
        return cls(runs=[UUID(task.task_id) for task in tasks], **policy)

    def __post_init__(self) -> None:
        """Refuse what nobody could wait for; raises `InvalidOptionError`."""
        object.__setattr__(self, "runs", needs_of("after.runs", self.runs))
        check_word("after.when", self.when, get_args(When))
        check_word("after.otherwise", self.otherwise, get_args(Otherwise))
        check_span("after.delay", self.delay)


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
    #: Which step of its parent, a workflow, it is.
    step: int | None = None
    event_id: UUID | None = None
    #: The event answered.
    cause: Cause | None = None
    #: The run that this one repeats.
    replay_of: UUID | None = None
    #: Ended by this moment, whether it waits or executes; passed down to what it submits.
    deadline_at: datetime | None = None
    #: Told of the end with a signed webhook.
    callback_url: str | None = None
    unique: Unique | None = None
    after: After | None = None
    actor: str = "unknown"
    traceparent: str | None = None

    @property
    def is_conditional(self) -> bool:
        """Whether other runs decide about it, so that it is accepted in a transaction that looks at them."""
        return self.unique is not None or self.after is not None

    @property
    def covered(self) -> str | None:
        """What an idempotency key covers beside task and arguments, as a SHA-256 in hex; None where there is nothing.

        That is what changes what the run does, or whom it tells: the runs it comes after, with `when` and `otherwise`;
        `callback_url`; and a unique key of its own, whether the submit or the task's owner says it. Left out are times,
        priority and labels, which decide when and how it is found: who submits again may well say "in an hour" of
        another moment. A unique key that comes from the arguments is covered by them.
        """
        given: dict[str, object] = {}
        if self.after is not None:
            needs = sorted({str(one) for one in self.after.runs})
            given["after"] = {"runs": needs, "when": self.after.when, "otherwise": self.after.otherwise}
        if self.callback_url is not None:
            given["callback_url"] = self.callback_url
        if self.unique is not None and self.unique.key is not None:
            given["unique"] = self.unique.key
        return sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS)).hexdigest() if given else None


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit: the run's id, whether this call made it, and whether the transport is to be given it."""

    id: UUID
    created: bool
    given: bool = field(default=False, compare=False)


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
    priority: Number = Priority.NORMAL
    deadline_at: datetime | None = None
    cause: Cause | None = None
    traceparent: str | None = None
    #: Which step of a workflow the run is.
    step: Number | None = None
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
    #: The last lines that the attempt logged.
    log: str | None = None
    #: When the next attempt is due, for `retrying` and `queued`.
    run_at: datetime | None = None
    #: 1 when the policy should not count this attempt.
    uncounted: int = 0
    events: Sequence[NewEvent] = ()
    #: Runs that answer `events`, where the ledger itself carries events.
    answers: Sequence[NewRun] = ()
    #: Whether the run is a step of a workflow, which is told of its end.
    is_step: bool = False


def cause_of(kept: Mapping[str, str] | None) -> Cause | None:
    """The cause of a run as its row keeps it."""
    if kept is None:
        return None
    return Cause(kept["id"], kept["type"], kept["source"], datetime.fromisoformat(kept["time"]))
