"""What it costs to run a plain function in a process that can be killed, beside a thread."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from bench.report import Figure

if TYPE_CHECKING:
    from bench.group import Bench

#: Of each kind, one after the other.
RUNS = 100


async def measured(bench: Bench) -> list[Figure]:
    """From the ledger's start to the ledger's end of a function that does nothing; the first starts the process."""
    ours = await bench.ours("postgres")
    async with ours.facts() as facts:
        async with ours.worker(facts):
            await ours.client("in_turn", RUNS)
        thread = await facts.took_ms("bench.noop_in_thread")
        cold, *warm = await facts.took_ms("bench.noop_in_process")
        await facts.forget()
    assert len(thread) == len(warm) + 1 == RUNS
    values = {"thread_ms": median(thread[1:]), "process_warm_ms": median(warm), "process_cold_ms": cold}
    return [Figure(name, round(value, 1), "ms", "lower") for name, value in values.items()]
