"""What the status page shows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from gateway.api.run_views import RunSummary
from gateway.api.schedule_views import ScheduleView
from gateway.api.views import EventView, HoldView, LimitsView, View


class WorkerView(View, frozen=True, kw_only=True):
    """A worker process that has not retired."""

    id: UUID
    domain: str
    host: str
    pid: int
    version: str
    concurrency: int
    running: int
    started_at: datetime
    heartbeat_at: datetime


class LimitedTaskView(View, frozen=True, kw_only=True):
    """A task with limits of its own."""

    name: str
    limits: LimitsView


class DomainView(View, frozen=True, kw_only=True):
    """A domain, and how many of its runs are in each state: all that wait or run, and those of the last day."""

    name: str
    counts: dict[str, int]
    #: How many of its runs may execute at once; null for no limit.
    limit: int | None
    limited_tasks: list[LimitedTaskView]


class Overview(View, frozen=True, kw_only=True):
    """What the status page shows."""

    transport: str
    domains: list[DomainView]
    running: list[RunSummary]
    failed: list[RunSummary]
    recent: list[RunSummary]
    schedules: list[ScheduleView]
    workers: list[WorkerView]
    events: list[EventView]
    holds: list[HoldView]
