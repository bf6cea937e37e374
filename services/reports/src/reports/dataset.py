"""The one typed data set that every format of the operations report is written from."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The name the report is asked for, stored and announced by.
REPORT = "operations"
TITLE = "Operations report"
#: The name under which analytics counts together what did not fit into its event.
REST = "(other)"
#: Length of the two windows: hours of the headline figures, days of the longer view.
HOURS, DAYS = 24, 14


class Frozen(BaseModel):
    """A value: never changed after it was made."""

    model_config = ConfigDict(frozen=True)


class Runs(Frozen):
    """How many runs ended, by state. Times are whole milliseconds, so that sums are exact in every format."""

    completed: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    cancelled: int = Field(default=0, ge=0)
    #: Ended in any other way: `partial`, or a state younger than this report.
    other: int = Field(default=0, ge=0)
    execution_ms: int = Field(default=0, ge=0)

    @property
    def ended(self) -> int:
        """All runs that ended."""
        return self.completed + self.failed + self.cancelled + self.other

    @property
    def success_rate(self) -> float | None:
        """Completed runs among those nobody cancelled; None where there were none."""
        judged = self.ended - self.cancelled
        return self.completed / judged if judged else None

    @property
    def mean_ms(self) -> float | None:
        """Mean execution time of one run; None where none ended."""
        return self.execution_ms / self.ended if self.ended else None


class TaskLine(Runs):
    """One task's runs within the last hours."""

    name: str


class TimeLine(Runs):
    """All runs that ended in one hour or day; `start` is in UTC."""

    start: datetime


class EventLine(Frozen):
    """How often one type of event was said."""

    name: str
    recent: int = Field(ge=0)
    fortnight: int = Field(ge=0)


class Totals(Frozen):
    """What every written file must add up to."""

    recent: Runs
    fortnight: Runs
    events_recent: int
    events_fortnight: int


class OperationsData(Frozen):
    """What the platform did: the last 24 hours by task and hour, the last 14 days by day, and the events said."""

    as_of: datetime
    tasks: tuple[TaskLine, ...]
    hours: tuple[TimeLine, ...] = Field(min_length=HOURS, max_length=HOURS)
    days: tuple[TimeLine, ...] = Field(min_length=DAYS, max_length=DAYS)
    events: tuple[EventLine, ...]
    #: What a reader has to know before trusting the figures, in sentences.
    notes: tuple[str, ...] = ()

    @property
    def since(self) -> datetime:
        """When the period of the headline figures begins."""
        return self.hours[0].start

    @property
    def recent(self) -> Runs:
        """All runs of the period."""
        return add(self.tasks)

    @property
    def totals(self) -> Totals:
        """The control totals."""
        return Totals(
            recent=self.recent,
            fortnight=add(self.days),
            events_recent=sum(line.recent for line in self.events),
            events_fortnight=sum(line.fortnight for line in self.events),
        )

    @property
    def busiest(self) -> TaskLine | None:
        """The task most runs of which ended, the slowest of them where several did."""
        return busiest_of(self.tasks)

    @model_validator(mode="after")
    def _hours_and_tasks_agree(self) -> Self:
        if add(self.hours) != self.recent:
            message = "the hours and the tasks of one report must have the same totals"
            raise ValueError(message)
        return self


def busiest_of(lines: Iterable[TaskLine]) -> TaskLine | None:
    """The task most runs of which ended, the slowest of them where several did; None where none ended."""
    named = [line for line in lines if line.ended and line.name != REST]
    return max(named, key=lambda line: (line.ended, line.execution_ms), default=None)


def add(lines: Iterable[Runs]) -> Runs:
    """The sum of lines of any kind."""
    lines = tuple(lines)
    return Runs(**{field: sum(getattr(line, field) for line in lines) for field in Runs.model_fields})


def folded_tasks(lines: Sequence[TaskLine], limit: int) -> tuple[TaskLine, ...]:
    """The first lines, and the rest as one: a document stays readable and its totals stay whole."""
    if len(lines) <= limit:
        return tuple(lines)
    rest = lines[limit - 1 :]
    return (*lines[: limit - 1], TaskLine(name=f"{len(rest)} other tasks", **add(rest).model_dump()))


def folded_events(lines: Sequence[EventLine], limit: int) -> tuple[EventLine, ...]:
    """The same for events."""
    if len(lines) <= limit:
        return tuple(lines)
    rest = lines[limit - 1 :]
    recent, fortnight = sum(line.recent for line in rest), sum(line.fortnight for line in rest)
    return (*lines[: limit - 1], EventLine(name=f"{len(rest)} other types", recent=recent, fortnight=fortnight))


def hour_starts(as_of: datetime) -> list[datetime]:
    """The hours of the period, the running one last."""
    last = as_of.replace(minute=0, second=0, microsecond=0)
    return [last - timedelta(hours=back) for back in reversed(range(HOURS))]


def day_starts(as_of: datetime) -> list[datetime]:
    """The days of the longer view, today last."""
    last = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    return [last - timedelta(days=back) for back in reversed(range(DAYS))]
