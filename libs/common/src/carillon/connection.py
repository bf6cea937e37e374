"""Connecting to a platform from a program of one's own, to submit tasks and to ask for results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from carillon import middleware
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.tasks import Tasks
from carillon.telemetry.metrics import Metrics
from carillon.worker.broker import CarillonBroker
from carillon.worker.results import results_of


@asynccontextmanager
async def connect(
    *domains: Tasks,
    settings: PlatformSettings | None = None,
    name: str = "client",
    opens: Callable[..., Platform] = Platform,
) -> AsyncIterator[Platform]:
    """Connect declared tasks, so that `.kiq()` submits and `wait_result()` reads.

    `opens` makes the platform, of the settings and its name. Raises `PlatformUnavailableError` when a server cannot be
    reached.
    """
    settings = settings or PlatformSettings()
    async with opens(settings, name=name) as platform:
        declared = [task for tasks in domains for task in tasks.declared.values()]
        broker = CarillonBroker(platform, declared, middleware.stack(Metrics()), results_of(platform))
        await broker.startup()
        try:
            yield platform
        finally:
            await broker.shutdown()
