"""Metrics: the numbers that each process shows at `/metrics`."""

from __future__ import annotations

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

#: From a no-op to an hour-long backup.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class Metrics:
    """The instruments of one process. Label values come from closed sets: declared tasks, states, hook names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR):
            self.registry.register(collector)
        self.attempts = Counter(
            "taskiq_tasks",
            "How many attempts ended, by how: success, partial, failed, retried, snoozed, cancelled or fenced.",
            ["task_name", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "taskiq_task_duration_seconds",
            "How long attempts took to execute.",
            ["task_name"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.active = Gauge(
            "taskiq_tasks_active", "How many attempts are executing now.", ["task_name"], registry=self.registry
        )
        self.submitted = Counter(
            "carillon_runs_submitted", "How many runs this process had accepted.", ["task_name"], registry=self.registry
        )
        self.fenced = Counter(
            "carillon_deliveries_fenced",
            "How many deliveries were dropped because the ledger no longer expected them.",
            registry=self.registry,
        )
        self.abandoned = Counter(
            "carillon_attempts_abandoned",
            "How many attempts ended while their code went on and kept its slot.",
            ["task_name"],
            registry=self.registry,
        )
        self.swept = Counter(
            "carillon_sweeper_runs",
            "How many runs were moved: due, overdue, admitted, expired, rescued or unheard.",
            ["reason"],
            registry=self.registry,
        )
        self.hook_failures = Counter(
            "carillon_hook_failures",
            "How many middleware hooks raised, and were contained.",
            ["middleware", "hook"],
            registry=self.registry,
        )
        self.gated = Gauge(
            "carillon_runs_gated",
            "How many runs of this domain wait for limits; no more than 10,000 are counted.",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "carillon_transport_waiting",
            "How many runs lie in the transport's queue of this domain.",
            registry=self.registry,
        )
