"""What analytics hears and says."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from carillon.contracts.event import Event


class RollupRow(BaseModel):
    """One bucket of one series: how many runs of a task ended in a state, or events of a type were said."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    grain: Literal["hour", "day"]
    bucket: datetime
    """The start of the bucket, in UTC."""
    kind: Literal["run", "event"]
    name: str
    """The task's name or the event's type; `(other)` for the rest, where there are too many."""
    state: str
    """The run's state; `said` for events."""
    count: int = Field(ge=0)
    seconds: float = Field(default=0, ge=0)
    """Sum of execution times, in seconds; 0 for events."""


class RollupRequested(Event):
    """Said by a schedule or a person who wants the rollups to be up to date; answered quietly."""

    type: ClassVar[str] = "analytics.rollup_requested.v1"

    since: AwareDatetime | None = None
    """Recompute from here on where that is earlier than what may have changed; never beyond the ledger's retention."""


class RollupsComputed(Event):
    """Said by analytics after it recomputed its hourly and daily rollups; carries the recent ones."""

    type: ClassVar[str] = "analytics.rollups_computed.v1"

    watermark: datetime
    """The moment up to which everything was counted, in UTC."""
    cause: str
    """Why it was recomputed: the type of the event that asked."""
    hourly: list[RollupRow] = Field(max_length=500)
    """The last 24 hours by the hour, at most 500 rows."""
    daily: list[RollupRow] = Field(max_length=500)
    """The last 14 days by the day, at most 500 rows."""
