"""What tracing every tenth run, and counting every run, cost a worker in processor seconds, over without."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.fill import fill_and_wake
from bench.process import wait_until
from bench.processor import seconds_of
from bench.report import Figure
from bench.system import MEASURE_SECONDS

if TYPE_CHECKING:
    from bench.group import Bench
    from bench.ours import Carillon

#: Put into the ledger by SQL once the worker is there, so that neither its start-up nor a client is counted.
RUNS = 20_000
OFF = {
    "tracing_cost": {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_TRACES_EXPORTER": ""},
    "metrics_cost": {"BENCH_METRICS": "off"},
}


async def measured(bench: Bench) -> list[Figure]:
    """Everything on beside everything but one, in rounds. Time would do as well, but for whoever else is at work."""
    on = await bench.ours("rabbitmq")
    without = {figure: await bench.ours("rabbitmq", **env) for figure, env in OFF.items()}
    costs: dict[str, list[float]] = {figure: [] for figure in OFF}
    for number in range(bench.rounds):
        with_all = await _micros(on)
        for figure, off in without.items():
            less = await _micros(off)
            costs[figure].append(with_all / less - 1)
            bench.say(
                f"round {number + 1}, {figure:<13} {with_all:.0f} µs of the worker for each run, {less:.0f} without"
            )
    return [Figure(figure, round(median(rounds), 3), "share", "lower") for figure, rounds in costs.items()]


async def _micros(ours: Carillon) -> float:
    """Processor microseconds of one worker for each run."""
    async with ours.facts() as facts:
        async with ours.worker(facts) as worker:
            before = seconds_of(worker.pid)
            await fill_and_wake(facts, RUNS)
            await wait_until(facts.all_ended, what=ours.name, limit=MEASURE_SECONDS, process=worker, log=ours.log)
            used = seconds_of(worker.pid) - before
        await facts.measured(RUNS)
        await facts.forget()
    return used / RUNS * 1e6
