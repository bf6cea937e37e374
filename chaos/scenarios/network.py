"""Faults of the network, put in by a proxy: nothing comes through, everything is late, connections are reset."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from chaos.proxy import Proxy
from chaos.scenarios.scenario import BOTH, Scenario

if TYPE_CHECKING:
    from chaos.stage import Stage

#: Longer than two heartbeats of RabbitMQ, so that both sides notice by themselves, in seconds.
LONG_HOLE = 70.0
CUTS = 3


async def break_network(stage: Stage) -> None:
    """A black hole, a delay and resets between the processes and the server that carries their runs."""
    variable = "RABBIT_URL" if stage.transport == "rabbitmq" else "DATABASE_URL"
    url = urlsplit(stage.crew.env[variable])
    async with Proxy(url.hostname or "127.0.0.1", url.port or 0) as proxy:
        through = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{proxy.port}"))
        stage.crew.env = {**stage.crew.env, variable: urlunsplit(through)}
        async with stage.under_load():
            proxy.black_hole()
            await asyncio.sleep(LONG_HOLE if stage.profile.everything else stage.profile.fault)
            proxy.heal()
            proxy.delay = 0.2
            await asyncio.sleep(stage.profile.fault / 3)
            proxy.heal()
            for _ in range(CUTS):
                proxy.cut()
                await asyncio.sleep(stage.profile.fault / 3)
            proxy.reset()
            await asyncio.sleep(2.0)
            proxy.heal()
        stage.faults["chunks held"] = proxy.counts.held
        stage.faults["connections cut"] = proxy.counts.cut
        stage.faults["connections reset"] = proxy.counts.reset
        # They end through the proxy too.
        stage.stop_seconds = await stage.crew.stop_all()


SCENARIOS = (Scenario("F18", "black hole, delay and resets before the server", break_network, BOTH),)
