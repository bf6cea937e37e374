"""Submits no-op runs as any program would: `python -m bench.client ACTION N`, where ACTION is a function below.

Reads the platform's variables from the environment. Writes JSON to standard output: for `spaced`, when each run was
submitted, and for `delayed`, when it was due, in nanoseconds since 1970, by its id; for `crowd`, how long it took; for
`chain` and `fan_out`, where N is that of the steps, how many they are; for `alone`, when each chain was submitted.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import uvloop

import carillon
from bench.domain import (
    call,
    chain,
    fan_out,
    noop,
    noop_in_process,
    noop_in_thread,
    sleep_long,
    tasks,
    wait_for_call,
)
from bench.system import CHAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

#: Submits awaited together while preloading; the ledger commits them in groups.
WINDOW = 500
#: Time between two submits of the latency measurement, in seconds.
SPACING = 0.02
WARM_UP = 30
#: Chains that warm everything up.
FEW = 3
#: Coroutines of `crowd`, each with one submit in flight; the floor has as many publishes in flight.
CROWD = 200
#: Of `delayed`, in seconds, and how many runs are due in an hour and later.
SHORTEST_DELAY, LONGEST_DELAY = 0.2, 6.0
FAR_OFF = 1_000


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


async def delayed(count: int) -> dict[str, int]:
    """Submit `count` runs with delays from 0.2 to 6 seconds, in random order, after 1,000 that are far off."""
    delays = [SHORTEST_DELAY + (LONGEST_DELAY - SHORTEST_DELAY) * number / (count - 1) for number in range(count)]
    random.shuffle(delays)
    async with carillon.connect(tasks):
        now = datetime.now(UTC)
        for number in range(0, FAR_OFF, WINDOW):
            await asyncio.gather(*(_due(now + timedelta(hours=1, seconds=number + each)) for each in range(WINDOW)))
        return dict(await asyncio.gather(*(_due(datetime.now(UTC) + timedelta(seconds=delay)) for delay in delays)))


async def in_turn(count: int) -> None:
    """Submit `count` runs in a thread and as many in a process, each when the last has ended."""
    async with carillon.connect(tasks):
        for task in (noop_in_thread, noop_in_process):
            for number in range(count):
                await (await task.kiq(number)).wait_result(check_interval=0.01, timeout=30)


async def chains(count: int) -> int:
    """Submit workflows of ten steps, as many as have `count` steps together."""
    async with carillon.connect(tasks):
        await chain.kiq_many({"number": number} for number in range(count // CHAIN))
    return count // CHAIN * CHAIN


async def one_fan_out(count: int) -> int:
    """Submit the workflow that begins `count` steps at once."""
    async with carillon.connect(tasks):
        await fan_out.kiq(count)
    return count


async def alone(count: int) -> dict[str, int]:
    """Run `count` chains, each when the last has ended, after some that warm everything up."""
    submitted = {}
    async with carillon.connect(tasks):
        for number in range(FEW + count):
            before = time.time_ns()
            run = await chain.kiq(number)
            await run.wait_result(check_interval=0.02, timeout=30)
            if number >= FEW:
                submitted[run.task_id] = before
    return submitted


async def waiting(count: int) -> None:
    """Submit `count` workflows that wait, half of them for an event each, and half in a sleep."""
    async with carillon.connect(tasks):
        for workflow in (wait_for_call, sleep_long):
            await workflow.kiq_many({"number": number} for number in range(count // 2))


async def calls(count: int) -> None:
    """Say the events that the first `count` workflows wait for, each by a run, when the run before it has ended."""
    async with carillon.connect(tasks):
        for number in range(count):
            await (await call.kiq(number)).wait_result(check_interval=0.02, timeout=30)
            await asyncio.sleep(SPACING)


async def _due(moment: datetime) -> tuple[str, int]:
    run = await noop.kicker().with_labels(run_at=moment).kiq(0)
    return run.task_id, int(moment.timestamp() * 1e9)


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
    "delayed": delayed,
    "in_turn": in_turn,
    "chain": chains,
    "fan_out": one_fan_out,
    "alone": alone,
    "waiting": waiting,
    "calls": calls,
}

if __name__ == "__main__":
    json.dump(uvloop.run(ACTIONS[sys.argv[1]](int(sys.argv[2]))), sys.stdout)
