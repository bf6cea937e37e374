"""What is told of schedules and their fires."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from gateway.api.views import Row, View


class ScheduleView(View, frozen=True, kw_only=True):
    """A schedule: what it fires, and when."""

    name: str
    cron: str | None
    interval_seconds: int | None
    timezone: str
    event_type: str
    owner: str
    paused: bool
    paused_by: str | None
    next_run_time: datetime | None
    last_run_time: datetime | None


class ScheduleList(View, frozen=True, kw_only=True):
    """All schedules."""

    schedules: list[ScheduleView]


class FireView(View, frozen=True, kw_only=True):
    """One moment at which a schedule fired, or did not, and why."""

    fire_at: datetime
    outcome: str
    detail: str | None
    event_id: UUID | None
    decided_at: datetime


class FireList(View, frozen=True, kw_only=True):
    """The newest fires of a schedule."""

    schedule: str
    fires: list[FireView]


def schedule_view(row: Row) -> ScheduleView:
    """A schedule, in the words of the specification."""
    return ScheduleView.of(
        row,
        paused=row["paused_at"] is not None,
        next_run_time=None if row["paused_at"] is not None else row["next_fire_at"],
        last_run_time=row["last_fire_at"],
    )
