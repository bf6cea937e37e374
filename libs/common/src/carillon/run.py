"""What a task can know and say of the run it is part of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from pydantic import AwareDatetime

from carillon.contracts import Event


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

    def say(self, event: Event) -> None:
        """Say an event when this attempt succeeds; what an attempt said that fails is not said."""
        self.said.append(event)
