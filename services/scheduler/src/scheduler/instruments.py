"""The numbers by which one sees that the clock goes, and how exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from scheduler.decisions import Outcome

if TYPE_CHECKING:
    from carillon.telemetry.metrics import Metrics

LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class Instruments:
    """The scheduler's instruments, on the process's registry."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self.last_tick = Gauge(
            "carillon_scheduler_last_tick_seconds",
            "When the clock last ticked, as Unix time; also while another scheduler leads.",
            registry=registry,
        )
        self.leading = Gauge("carillon_scheduler_leading", "Whether this process leads.", registry=registry)
        self.lateness = Histogram(
            "carillon_scheduler_lateness_seconds",
            "How long after their fire time schedules fired.",
            buckets=LATENESS,
            registry=registry,
        )
        self.fires = Counter(
            "carillon_scheduler_fires", "How many fire times were decided, by outcome.", ["outcome"], registry=registry
        )
        self.failed_ticks = Counter(
            "carillon_scheduler_failed_ticks", "How many ticks failed, and were tried again.", registry=registry
        )
        self.broken = Gauge(
            "carillon_scheduler_broken_schedules", "How many schedules cannot be followed.", registry=registry
        )
        for outcome in Outcome:
            self.fires.labels(outcome.value)
