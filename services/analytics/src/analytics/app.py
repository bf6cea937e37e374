"""Analytics, assembled. `carillon serve analytics` runs it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from analytics import events  # noqa: F401 - declares what is heard
from analytics.aggregate import Aggregator
from analytics.settings import AnalyticsSettings
from analytics.store import Store
from analytics.tasks import tasks
from carillon import Schedule, Service
from carillon.contracts import RollupRequested
from carillon.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from taskiq import AsyncBroker

    from carillon.platform import Platform


def service() -> Service:
    """Put analytics together from its settings."""
    settings = AnalyticsSettings()
    return Service(
        name="analytics",
        settings=PlatformSettings(),
        tasks=tasks,
        resources=partial(resources, settings),
        migrations="analytics.migrations",
        # Five minutes past, so that the hour that just ended is whole.
        schedules=[Schedule(name="hourly-rollups", cron="5 * * * *", timezone="UTC", event=RollupRequested())],
        concurrency=settings.concurrency,
        port=settings.port,
    )


def broker() -> AsyncBroker:
    """Return the broker for `taskiq worker analytics.app:broker`."""
    return service().broker()


@asynccontextmanager
async def resources(settings: AnalyticsSettings, platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """Provide what tasks need."""
    aggregator = Aggregator(
        platform.history,
        Store(platform.engine),
        late=timedelta(hours=settings.late_hours),
        retention=timedelta(hours=platform.settings.task_tracking_retention_hours),
    )
    yield {Aggregator: aggregator}
