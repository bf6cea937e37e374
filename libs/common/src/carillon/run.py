"""What a task can know and say of the run it is part of."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime

from carillon.contracts import Event
from carillon.errors import Stopped


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that a run answers."""

    id: str
    type: str
    source: str
    time: AwareDatetime


@dataclass(slots=True)
class Run:
    """The run that a task's code is part of. Ask for it with a keyword-only parameter `run: Run`."""

    id: UUID
    task: str
    domain: str
    attempt: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    cause: Cause | None = None
    said: list[Event] = field(default_factory=list)
    #: The run has to be ended by this moment; what the task submits inherits it.
    deadline_at: datetime | None = None
    #: Why the attempt is to end, in a sentence, once it is.
    stopped: str | None = None

    def say(self, event: Event) -> None:
        """Say an event when this attempt succeeds; what an attempt said that fails is not said."""
        self.said.append(event)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is to end: its time is up, somebody cancelled it, or the worker stops.

        A thread cannot be interrupted, so a function that runs in one looks here, or calls `check`, now and then.
        """
        return self.stopped is not None

    def check(self) -> None:
        """Raise `Stopped` when the attempt is to end. Let it through, after cleaning up."""
        if self.stopped is not None:
            raise Stopped(self.stopped)


#: The run whose code executes here: set while a task's code runs, also in its threads and the asyncio tasks it starts.
current_run: ContextVar[Run | None] = ContextVar("current_run", default=None)
