"""Carillon's workflows as a measured system: one worker process with everything on, proven by its own ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.process import wait_until
from bench.system import FAN_OUT, MEASURE_SECONDS, Measured

if TYPE_CHECKING:
    from bench.ours import Carillon

#: How long the last chain that ran alone may take to be ended in the ledger, in seconds.
SETTLE_SECONDS = 10.0


class Workflows:
    """Workflows of the domain `bench`, each step a run of its own."""

    def __init__(self, ours: Carillon, workflow: str) -> None:
        """`ours` is prepared; `workflow` is `chain` or `fan_out`."""
        self.name = f"{ours.name}, workflows"
        self.largest = FAN_OUT if workflow == "fan_out" else ours.largest
        self._ours = ours
        self._workflow = workflow

    async def measure(self, count: int) -> Measured:
        """Submit workflows of some `count` steps, start one worker, and read from the ledger when it did what."""
        submitted = int(await self._ours.client(self._workflow, count))
        async with self._ours.facts() as facts:
            async with self._ours.worker(facts) as worker:
                await wait_until(
                    facts.all_ended, what=self.name, limit=MEASURE_SECONDS, process=worker, log=self._ours.log
                )
            measured = await facts.steps_measured(submitted)
            await facts.forget()
        return measured

    async def alone_ms(self, count: int) -> list[float]:
        """How long each of `count` chains takes, one after the other, from its submit to its end in the ledger."""
        async with self._ours.facts() as facts:
            async with self._ours.worker(facts) as worker:
                submitted = json.loads(await self._ours.client("alone", count))
                await wait_until(
                    facts.all_ended, what=self.name, limit=SETTLE_SECONDS, process=worker, log=self._ours.log
                )
            ended = await facts.ended_ns("bench.chain")
            await facts.forget()
        return [(ended[run] - before) / 1e6 for run, before in submitted.items()]
