"""What the platform itself says of runs."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from carillon.contracts.event import Event


class RunEnded(Event):
    """A run ended whose submitter asked to be called back; said by the platform, heard by notifications."""

    type: ClassVar[str] = "carillon.run_ended.v1"
    subject_field: ClassVar[str] = "run_id"

    run_id: UUID
    task: str
    #: completed, failed, cancelled or partial.
    state: str
    #: The number of its last attempt.
    attempt: int
    finished_at: AwareDatetime
    #: Why it failed or was cancelled, in one line.
    error: str | None = None
    #: The origin of whom to tell, such as `https://shop.example`. The rest of the URL may be a secret, and events are
    #: read by many: it stays with the run.
    receiver: str
