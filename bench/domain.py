"""The domain `bench`: tasks that do next to nothing, with everything on, and workflows of them.

`python -m bench.domain` runs its worker.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import uvloop
from taskiq import TaskiqMiddleware

from bench.system import CHAIN
from carillon import Retry, Service, Tasks, Workflow
from carillon.contracts import Event
from carillon.middleware import MetricsMiddleware
from carillon.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from carillon.platform import Platform


class Called(Event):
    """Said by `call`, for the one workflow that waits for this number."""

    type: ClassVar[str] = "bench.called.v1"

    number: int


tasks = Tasks("bench")
#: Runs at once, the same as every system's prefetch.
CONCURRENCY = 200


@tasks.task(timeout=timedelta(seconds=30), retry=Retry(attempts=3))
async def noop(number: int) -> int:
    """Say when it was started, in nanoseconds since 1970.

    Safe to run twice: it changes nothing.
    """
    del number
    return time.time_ns()


@tasks.task(timeout=timedelta(seconds=30))
def noop_in_thread(number: int) -> int:
    """The same, as a plain function.

    Safe to run twice: it changes nothing.
    """
    del number
    return time.time_ns()


@tasks.task(timeout=timedelta(seconds=30), process=True)
def noop_in_process(number: int) -> int:
    """The same, in a process that can be killed.

    Safe to run twice: it changes nothing.
    """
    del number
    return time.time_ns()


@tasks.task(timeout=timedelta(seconds=30), retry=Retry(attempts=3))
async def add(value: dict[str, int]) -> dict[str, int]:
    """Count one further.

    Safe to run twice: it only returns.
    """
    return {"number": value["number"] + 1}


@tasks.task(timeout=timedelta(seconds=30), retry=Retry(attempts=3))
async def call(number: int) -> Called:
    """Say the event that one workflow waits for.

    Safe to run twice: the event is said with the one end of its run.
    """
    return Called(number=number)


@tasks.workflow()
async def chain(number: int, *, flow: Workflow) -> dict[str, int]:
    """Ten steps, each with the result of the one before."""
    value = {"number": number}
    for _ in range(CHAIN):
        value = await flow.step(add, value)
    return value


@tasks.workflow()
async def fan_out(count: int, *, flow: Workflow) -> int:
    """Begin `count` steps at once, and add up what they return."""
    batch = await flow.map(add, [{"number": number} for number in range(count)])
    return sum(value["number"] for value in batch.results if value is not None)


@tasks.workflow(awaits=[Called])
async def wait_for_call(number: int, *, flow: Workflow) -> int:
    """Wait for the event with this number."""
    return (await flow.event(Called, match={"number": number})).number


@tasks.workflow()
async def sleep_long(number: int, *, flow: Workflow) -> int:
    """Sleep for longer than any measurement lasts."""
    await flow.sleep(timedelta(days=1))
    return number


def service() -> Service:
    """Assemble the domain."""
    return Service(
        name="bench",
        settings=PlatformSettings(),
        tasks=tasks,
        resources=nothing,
        concurrency=CONCURRENCY,
        port=0,
    )


@asynccontextmanager
async def nothing(_: Platform) -> AsyncIterator[Mapping[type, object]]:
    """No resources."""
    yield {}


def without_metrics() -> None:
    """Count nothing: what counting costs is the difference to a worker that does."""
    for hook in ("pre_execute", "post_execute", "post_save", "post_send"):
        setattr(MetricsMiddleware, hook, getattr(TaskiqMiddleware, hook))


if __name__ == "__main__":
    if os.environ.get("BENCH_METRICS") == "off":
        without_metrics()
    uvloop.run(service().run())
