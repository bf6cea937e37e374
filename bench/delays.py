"""How late runs with delays begin, with long and short ones mixed, beside a thousand that are far off."""

from __future__ import annotations

import json
from statistics import quantiles
from typing import TYPE_CHECKING

from bench.process import wait_until
from bench.report import Figure

if TYPE_CHECKING:
    from bench.group import Bench
    from bench.ours import Carillon

#: Runs with a delay from 0.2 to 6 seconds: about 34 are due each second.
RUNS = 200
#: From the last submit until all have ended, in seconds.
PATIENCE_SECONDS = 20.0


async def measured(bench: Bench) -> list[Figure]:
    """Both transports: with RabbitMQ the sweeper gives out what is due, with PostgreSQL workers claim it."""
    figures = []
    for transport in ("rabbitmq", "postgres"):
        late = await _late_ms(await bench.ours(transport))
        bench.say(f"{transport}: earliest {min(late):.1f} ms after its moment, latest {max(late):.1f} ms")
        suffix = "" if transport == "rabbitmq" else "_postgres"
        p99 = quantiles(late, n=100, method="inclusive")[98]
        figures.append(Figure(f"delay_late_p99_ms{suffix}", round(p99, 1), "ms", "lower"))
        figures.append(Figure(f"delay_late_max_ms{suffix}", round(max(late), 1), "ms", "lower"))
    return figures


async def _late_ms(ours: Carillon) -> list[float]:
    async with ours.facts() as facts:
        async with ours.worker(facts) as worker:
            due = json.loads(await ours.client("delayed", RUNS))

            async def all_short_ones_ended() -> bool:
                return (await facts.completed()).count == RUNS

            await wait_until(all_short_ones_ended, what=ours.name, limit=PATIENCE_SECONDS, process=worker, log=ours.log)
        started = await facts.started_ns()
        await facts.forget()
    return [(started[run] - moment) / 1e6 for run, moment in due.items()]
