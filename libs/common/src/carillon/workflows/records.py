"""What the ledger keeps of workflows: their steps, in the order in which the code asked for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from carillon.ledger.records import NewRun

Kind = Literal["task", "sleep", "event", "approval", "repair"]

#: In the list of what was seen, that somebody wants the workflow cancelled.
CANCELLATION = 0
#: A workflow of more steps reads too much each time it goes on; its parts can be workflows of their own.
MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStep:
    """A step that the code asks for."""

    #: Counted from 1, in the order in which the code asks.
    seq: int
    kind: Kind
    #: The task, the type of the event, or what is to be approved.
    name: str
    #: What was seen since the step before: the numbers of the steps whose ends were told, in order.
    saw: Sequence[int]
    #: The moment, by the workflow's clock.
    at: datetime
    #: Of what it was asked with: 16 characters of a SHA-256 in hex.
    digest: str
    #: Of a task.
    run: NewRun | None = None
    #: Of a sleep; of an event and an approval, when to give up.
    due_at: datetime | None = None
    #: Of an event: values by the names of its fields.
    match: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step as it was recorded."""

    seq: int
    kind: Kind
    name: str
    saw: Sequence[int]
    at: datetime
    digest: str
    run_id: UUID | None = None
    #: How it ended; None until then. Of a task a state of runs; else completed, expired or cancelled.
    outcome: str | None = None
    result: Any = None
    error: Mapping[str, Any] | None = None
    #: Of a task: its last attempt, and when that began; None where none did.
    attempt: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is recorded of a workflow."""

    steps: Sequence[Step] = ()
    #: How many ends it was told of.
    told: int = 0
    #: Why it is to end, if it is.
    cancel: Mapping[str, Any] | None = None
    #: `version` and `code` that it began with; None where it has recorded nothing.
    origin: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """What is written when a workflow waits: nothing of it executes until it is told of an end."""

    id: UUID
    attempt: int
    #: It goes on when it was told of so many ends.
    wake_at: int
    #: Whether it knows that somebody wants it cancelled.
    knows_cancel: bool
    origin: Mapping[str, Any]
    steps: Sequence[NewStep]
    #: The numbers of steps that it does not wait for any more.
    voided: Sequence[int] = ()
