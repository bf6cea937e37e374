"""Backup, assembled. `carillon serve backup` runs it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from backup.dumps import Dumps
from backup.events import tasks
from backup.settings import BackupSettings
from backup.sources import Source, parse_source
from backup.store import BackupStore
from carillon import Schedule, Service
from carillon.contracts import BackupRequested
from carillon.errors import ConfigurationError
from carillon.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from taskiq import AsyncBroker

    from carillon.platform import Platform

#: The id of Carillon's own database among the sources.
PLATFORM = "platform"


def service() -> Service:
    """Backup as a deployable: what it does and hears, what it needs, and when it works by itself."""
    settings = BackupSettings()
    return Service(
        name="backup",
        settings=PlatformSettings(),
        tasks=tasks,
        resources=partial(resources, settings),
        migrations="backup.migrations",
        schedules=[
            Schedule(name="nightly-backup", cron="0 2 * * *", timezone="UTC", event=BackupRequested(source=PLATFORM))
        ],
        concurrency=settings.concurrency,
        port=settings.port,
    )


def broker() -> AsyncBroker:
    """Backup's queue for the command `taskiq worker backup.app:broker`."""
    return service().broker()


@asynccontextmanager
async def resources(settings: BackupSettings, platform: Platform) -> AsyncIterator[Mapping[type, object]]:
    """Make what the tasks are given."""
    sources = configured_sources(settings, platform.settings)
    records = BackupStore(platform.engine)
    level, folder = settings.compression_level, settings.tools_folder
    yield {Dumps: Dumps(sources, platform.storage, records, level=level, tools_folder=folder)}


def configured_sources(settings: BackupSettings, platform: PlatformSettings) -> dict[str, Source]:
    """Every source by its id. Raises ConfigurationError where one cannot be read."""
    if PLATFORM in settings.sources:
        message = f"BACKUP_SOURCES may not name {PLATFORM!r}: it is always the database of DATABASE_URL"
        raise ConfigurationError(message)
    urls = {PLATFORM: platform.database_url, **settings.sources}
    return {name: parse_source(name, url.get_secret_value()) for name, url in urls.items()}
