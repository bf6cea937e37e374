"""Submits no-op runs as any program would: `python -m bench.client preload N`, `spaced N` or `crowd N`.

Reads the platform's variables from the environment. Writes JSON to standard output: for `spaced`, when each run was
submitted, in nanoseconds since 1970, by its id; for `crowd`, how long it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import uvloop

import carillon
from bench.domain import noop, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

#: Submits awaited together while preloading; the ledger commits them in groups.
WINDOW = 500
#: Time between two submits of the latency measurement, in seconds.
SPACING = 0.02
WARM_UP = 30
#: Coroutines of `crowd`, each with one submit in flight; the floor has as many publishes in flight.
CROWD = 200


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


async def crowd(count: int) -> dict[str, float]:
    """Submit `count` runs from 200 coroutines, each its next one when the last is accepted."""
    numbers = iter(range(count))

    async def one_of_them() -> None:
        for number in numbers:
            await noop.kiq(number)

    async with carillon.connect(tasks):
        began = time.perf_counter()
        await asyncio.gather(*(one_of_them() for _ in range(CROWD)))
        return {"count": count, "seconds": time.perf_counter() - began}


async def _submitted(number: int) -> tuple[str, int]:
    began = time.monotonic()
    before = time.time_ns()
    run = await noop.kiq(number)
    await asyncio.sleep(SPACING - (time.monotonic() - began))
    return run.task_id, before


ACTIONS: dict[str, Callable[[int], Coroutine[Any, Any, object]]] = {
    "preload": preload,
    "spaced": spaced,
    "crowd": crowd,
}

if __name__ == "__main__":
    json.dump(uvloop.run(ACTIONS[sys.argv[1]](int(sys.argv[2]))), sys.stdout)
