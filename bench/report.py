"""The figures as a table for people and as `results.json` for machines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.rounds import Outcome

#: What a figure has to reach. One without an entry is shown only.
TARGETS = {
    "execution_rabbitmq_vs_raw": 0.6,
    "execution_rabbitmq_vs_celery_redis": 4.0,
    "execution_rabbitmq_vs_celery_db": 25.0,
    "execution_rabbitmq_vs_taskiq_redis": 2.5,
    "execution_postgres_vs_procrastinate": 4.0,
    "latency_rabbitmq_p50_ms": 5.0,
    "latency_rabbitmq_p99_ms": 25.0,
    "latency_postgres_p50_ms": 5.0,
    "latency_postgres_p99_ms": 25.0,
    "submit_vs_raw": 0.6,
    "http_submit_p50_ms": 8.0,
    "http_submit_per_s": 1_000.0,
    "bulk_submit_per_s": 10_000.0,
    "backlog_cost_ratio": 1.3,
    "backlog_cost_ratio_postgres": 1.3,
    "delay_late_max_ms": 250.0,
    "delay_late_max_ms_postgres": 250.0,
    "workflow_steps_vs_dbos": 5.0,
    "workflow_steps_vs_celery_chain": 1.5,
    "workflow_step_overhead_ratio": 3.0,
    "waiting_10k_rss_mib": 200.0,
    "tracing_cost": 0.1,
    "metrics_cost": 0.1,
    "history_page_p95_ms": 50.0,
    "retention_1m_s": 2.0,
}


@dataclass(frozen=True)
class Figure:
    """One line of `results.json`, without the machine."""

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]

    @property
    def target(self) -> float | None:
        """What it should reach."""
        return TARGETS.get(self.name)

    @property
    def reached(self) -> bool:
        """Whether the target, if there is one, is reached."""
        if self.target is None:
            return True
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def line(self) -> str:
        """The figure beside its target."""
        sign = ">=" if self.better == "higher" else "<="
        aim = "" if self.target is None else f"{sign} {self.target:g}{'' if self.reached else '  NOT REACHED'}"
        return f"{self.name:<46} {self.value:>10.2f} {self.unit:<6} {aim}".rstrip()


def rates_table(outcome: Outcome, unit: str = "executions per second") -> str:
    """Each system's rounds, and their median."""
    rounds = max(map(len, outcome.rates.values()))
    heads = "".join(f"{f'round {number + 1}':>9}" for number in range(rounds))
    lines = [f"{unit:<40}{heads}{'median':>9}"]
    for name, rates in outcome.rates.items():
        lines.append(f"{name:<40}{''.join(f'{rate:>9.0f}' for rate in rates)}{outcome.median(name):>9.0f}")
    return "\n".join(lines)


def facts_table(facts: Mapping[str, object]) -> str:
    """Machine or versions on one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def write_results(
    file: Path, figures: list[Figure], machine: Mapping[str, object], versions: Mapping[str, str]
) -> None:
    """Enter the figures in `results.json`, in place of earlier ones of their names; the others stay as they are."""
    kept = {row["name"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    kept |= {figure.name: {**asdict(figure), "machine": machine, "versions": versions} for figure in figures}
    file.write_text(json.dumps(list(kept.values()), indent=2) + "\n")
