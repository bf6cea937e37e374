"""The domain `bench`: one task that does nothing, with everything on. `python -m bench.domain` runs its worker."""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import uvloop
from taskiq import TaskiqMiddleware

from carillon import Retry, Service, Tasks
from carillon.middleware import MetricsMiddleware
from carillon.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from carillon.platform import Platform

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
