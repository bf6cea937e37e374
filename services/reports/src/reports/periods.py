"""The reports that can be asked for over a period: what there is, what is said of one, and its data set."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from reports.dataset import Frozen, Runs, TaskLine, TimeLine, add
from reports.files import MEDIA_TYPES, FileFormat

#: The reports there are, by the name they are asked for by, and their titles.
REPORT_TYPES = {"operations": "Operations report", "failures": "Failures report"}
#: What a format may be called besides its own name.
_ALSO_CALLED: dict[str, FileFormat] = {"excel": "xlsx"}
#: A longer period has more days than a page can list.
MOST_DAYS = 366
#: Each gets a message of their own, and so a run.
MOST_RECIPIENTS = 50
_ADDRESS = re.compile(r"[^\x00-\x20\x7f@]+@[^\x00-\x20\x7f@]+")


class Period(Frozen):
    """Which report, over which days, the last one included; days are those of UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    report_type: str
    start_date: date
    end_date: date

    @property
    def title(self) -> str:
        """What the report is called, without its period."""
        return REPORT_TYPES[self.report_type]

    @property
    def days(self) -> list[date]:
        """All its days."""
        return [self.start_date + timedelta(days=n) for n in range((self.end_date - self.start_date).days + 1)]

    @field_validator("report_type")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in REPORT_TYPES:
            message = f"there is no report {name[:40]!r}; there are {', '.join(REPORT_TYPES)}"
            raise ValueError(message)
        return name

    @model_validator(mode="after")
    def _is_not_too_long(self) -> Self:
        if not 0 <= (self.end_date - self.start_date).days < MOST_DAYS:
            message = (
                f"a period ends on the day it begins or later, and has at most {MOST_DAYS} days; "
                f"{self.start_date} to {self.end_date} does not"
            )
            raise ValueError(message)
        return self


class ReportSpec(Period):
    """One report that somebody wants: its period, its format, and who gets it."""

    output_format: FileFormat
    #: Each once, however often they are named.
    recipients: tuple[str, ...] = Field(min_length=1, max_length=MOST_RECIPIENTS)
    #: Whether nothing is made and sent where no run is to be counted.
    skip_if_empty: bool = False

    @property
    def period(self) -> dict[str, Any]:
        """The arguments of what collects its data, as JSON types."""
        return self.model_dump(mode="json", include=set(Period.model_fields))

    @field_validator("output_format", mode="before")
    @classmethod
    def _is_written(cls, name: object) -> object:
        known = _ALSO_CALLED.get(str(name), name)
        if known not in MEDIA_TYPES:
            message = (
                f"no report is written as {str(name)[:40]!r}; there are {', '.join((*MEDIA_TYPES, *_ALSO_CALLED))}"
            )
            raise ValueError(message)
        return known

    @field_validator("recipients")
    @classmethod
    def _are_addresses(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        for recipient in recipients:
            if not _ADDRESS.fullmatch(recipient):
                message = f"{recipient[:80]!r} is no address; it has to be one local@domain"
                raise ValueError(message)
        return tuple(dict.fromkeys(recipients))


class PeriodTotals(NamedTuple):
    """What every written file of a period must add up to."""

    tasks: Runs
    days: Runs


class PeriodData(Frozen):
    """What the platform did over a period, by task and by day."""

    period: Period
    #: Up to when it was counted, as of the last day of it that was heard of.
    as_of: datetime
    tasks: tuple[TaskLine, ...]
    #: Only days that were heard of; one on which nothing ended is there, and zero.
    days: tuple[TimeLine, ...]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Runs:
        """All runs of the period."""
        return add(self.tasks)

    @property
    def totals(self) -> PeriodTotals:
        """The control totals."""
        return PeriodTotals(tasks=self.total, days=add(self.days))

    @model_validator(mode="after")
    def _days_and_tasks_agree(self) -> Self:
        if add(self.days) != self.total:
            message = "the days and the tasks of one report must have the same totals"
            raise ValueError(message)
        return self
