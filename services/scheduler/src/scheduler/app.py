"""The scheduler, assembled. `carillon serve scheduler` runs it."""

from __future__ import annotations

from datetime import timedelta

from carillon import Service
from carillon.settings import PlatformSettings
from scheduler.clock import Clock
from scheduler.settings import SchedulerSettings


def service() -> Service:
    """The scheduler as a deployable: a clock, and the probe that says whether it goes."""
    settings = SchedulerSettings()
    clock = Clock(grace=timedelta(seconds=settings.misfire_grace_seconds))
    return Service(
        name="scheduler",
        settings=PlatformSettings(),
        migrations="scheduler.migrations",
        background=clock.run,
        probes=[clock.fault],
        port=settings.port,
    )
