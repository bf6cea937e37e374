"""What 10,000 workflows that wait cost a worker in memory, and how soon one of them goes on when its event comes."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.process import wait_until
from bench.report import Figure
from bench.system import MEASURE_SECONDS

if TYPE_CHECKING:
    from bench.group import Bench

#: Workflows that wait, half of them for an event each and half in a sleep; and how many of them are called.
WAITING, CALLED = 10_000, 30


async def measured(bench: Bench) -> list[Figure]:
    """The worker's resident memory when all of them wait, and from each event to the end of its workflow."""
    ours = await bench.ours("rabbitmq")
    async with ours.facts() as facts, ours.worker(facts) as worker:
        idle = _resident_mib(worker.pid)
        await ours.client("waiting", WAITING)

        async def all_wait() -> bool:
            return await facts.waiting() == WAITING

        async def all_heard() -> bool:
            return len(await facts.late_ms()) == CALLED

        await wait_until(all_wait, what=ours.name, limit=MEASURE_SECONDS, process=worker, log=ours.log)
        resident = _resident_mib(worker.pid)
        bench.say(f"a worker of {idle:.0f} MiB has {resident:.0f} MiB when {WAITING:,} workflows wait")
        await ours.client("calls", CALLED)
        await wait_until(all_heard, what=ours.name, limit=MEASURE_SECONDS, process=worker, log=ours.log)
        late = await facts.late_ms()
    await ours.empty()
    bench.say(f"from the event to the workflow's end {min(late):.1f} to {max(late):.1f} ms, {len(late)} times")
    return [
        Figure("waiting_10k_rss_mib", round(resident, 1), "MiB", "lower"),
        Figure("waiting_event_to_end_ms", round(median(late), 1), "ms", "lower"),
    ]


def _resident_mib(pid: int) -> float:
    """The memory that a process has now, by the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) / 1_024
