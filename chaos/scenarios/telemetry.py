"""Faults of what watches: the collector of traces answers nothing, or resets every connection."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from bench.otlp_sink import collector
from chaos.proxy import Proxy
from chaos.recovery import SHARE, rate
from chaos.scenarios.scenario import BOTH, POSTGRES, Scenario

if TYPE_CHECKING:
    from chaos.stage import Stage

#: A worker with nothing to do ends within this many seconds, whatever its collector does.
MOST_EXIT_SECONDS = 10.0


async def lose_collector(stage: Stage) -> None:
    """The collector is a black hole, then resets, and is a black hole again while the workers end."""
    with collector() as sink:
        async with Proxy("127.0.0.1", sink.server_port) as proxy:
            env = {
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
                # More often than by default, so that a short fault meets many exports.
                "OTEL_BSP_SCHEDULE_DELAY": "500",
            }
            async with stage.under_load(env=env):
                await _watch(stage, "black hole", proxy.black_hole)
                proxy.heal()
                await _watch(stage, "resets", proxy.reset)
                proxy.heal()
            proxy.black_hole()
            stage.stop_seconds = await stage.crew.stop_all()
            stage.faults["exports held"] = proxy.counts.held
            stage.faults["connections reset"] = proxy.counts.reset
            stage.expect(sink.requests > 0, "the collector got nothing at all")
    slowest = max(stage.stop_seconds.values())
    stage.expect(slowest <= MOST_EXIT_SECONDS, f"a process took {slowest:.1f} s to end")


async def _watch(stage: Stage, name: str, begin: object) -> None:
    began = time.time()
    begin()  # type: ignore[operator]
    await asyncio.sleep(stage.profile.fault)
    during = rate(stage.ends(), began, time.time())
    stage.expect(during >= SHARE * stage.usual, f"{name}: from {stage.usual:.0f} to {during:.0f} runs/s")


SCENARIOS = (
    Scenario("F38", "the collector of traces is a black hole, and resets", lose_collector, BOTH, quick=POSTGRES),
)
