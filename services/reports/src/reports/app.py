"""Reports, assembled. `carillon serve reports` runs it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from carillon import Service
from carillon.settings import PlatformSettings
from reports.events import tasks
from reports.operations import OperationsReports
from reports.period_reports import PeriodReports
from reports.renderer import PeriodRenderer, Renderer
from reports.settings import ReportsSettings
from reports.shelf import Shelf
from reports.store import ReportRegister, StoredDays

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from taskiq import AsyncBroker

    from carillon.platform import Platform


def service() -> Service:
    """Everything that one reports process is."""
    settings = ReportsSettings()
    return Service(
        name="reports",
        settings=PlatformSettings(),
        tasks=tasks,
        resources=partial(resources, settings),
        migrations="reports.migrations",
        concurrency=settings.concurrency,
        port=settings.port,
    )


def broker() -> AsyncBroker:
    """The same as a Taskiq broker: `taskiq worker reports.app:broker`."""
    return service().broker()


@asynccontextmanager
async def resources(settings: ReportsSettings, platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """What tasks can ask for."""
    timeout = timedelta(seconds=settings.rendering_timeout_seconds)
    shelf, register, days = Shelf(platform.storage), ReportRegister(platform.engine), StoredDays(platform.engine)
    yield {
        OperationsReports: OperationsReports(Renderer(timeout), shelf, register, days),
        PeriodReports: PeriodReports(days, PeriodRenderer(timeout), shelf, register),
    }
