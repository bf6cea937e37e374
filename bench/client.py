"""Submits no-op runs as any program would: `python -m bench.client preload N` or `python -m bench.client spaced N`.

Reads the platform's variables from the environment. Writes JSON to standard output: for `spaced`, when each run was
submitted, in nanoseconds since 1970, by its id.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

import carillon
from bench.domain import noop, tasks

#: Submits awaited together while preloading; the ledger commits them in groups.
WINDOW = 500
#: Time between two submits of the latency measurement, in seconds.
SPACING = 0.02
WARM_UP = 30


async def preload(count: int) -> None:
    """Submit `count` runs as fast as the platform takes them."""
    async with carillon.connect(tasks):
        for start in range(0, count, WINDOW):
            await asyncio.gather(*(noop.kiq(number) for number in range(start, min(start + WINDOW, count))))


async def spaced(count: int) -> dict[str, int]:
    """Submit `count` runs, one each 20 ms, after some that warm the connections up."""
    async with carillon.connect(tasks):
        for number in range(WARM_UP):
            await _submitted(number)
        return dict([await _submitted(number) for number in range(count)])


async def _submitted(number: int) -> tuple[str, int]:
    began = time.monotonic()
    before = time.time_ns()
    run = await noop.kiq(number)
    await asyncio.sleep(SPACING - (time.monotonic() - began))
    return run.task_id, before


if __name__ == "__main__":
    action, wanted = sys.argv[1], int(sys.argv[2])
    json.dump(uvloop.run(preload(wanted) if action == "preload" else spaced(wanted)), sys.stdout)
