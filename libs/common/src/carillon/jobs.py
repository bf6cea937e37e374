"""Schedules as jobs, from Python: list them, pause one, let it go on.

```python
for job in await get_job_status():
    print(f"{job['name']}: next run at {job['next_run_time']}")
```
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypedDict

from carillon.errors import ConfigurationError
from carillon.ledger.audit import Actor, account
from carillon.ledger.schedules import Row
from carillon.platform import Platform
from carillon.settings import PlatformSettings


class Job(TypedDict):
    """A schedule as a job."""

    name: str
    #: None while it is paused.
    next_run_time: datetime | None
    #: The cron expression with its time zone, or the interval.
    trigger: str
    event_type: str
    paused: bool
    paused_by: str | None
    last_run_time: datetime | None


async def get_job_status(platform: Platform | None = None) -> list[Job]:
    """All jobs by name. Without a platform it connects to the one that the environment names."""
    async with _connected(platform) as opened:
        return [
            Job(
                name=row["name"],
                next_run_time=None if row["paused_at"] else row["next_fire_at"],
                trigger=_trigger(row),
                event_type=row["event_type"],
                paused=row["paused_at"] is not None,
                paused_by=row["paused_by"],
                last_run_time=row["last_fire_at"],
            )
            for row in await opened.schedules.all()
        ]


async def pause_job(
    name: str, platform: Platform | None = None, *, by: str | None = None, reason: str | None = None
) -> None:
    """Let a job not fire until it is resumed: it does not once this has returned.

    The audit trail says that `by` did it (unset is the account of this process) and why. Raises `ConfigurationError`
    when there is no such job, and `ValueError` for a reason beyond 500 characters.
    """
    async with _connected(platform) as opened:
        _found(name, found=await opened.schedules.pause(name, _actor(opened, by), reason))


async def resume_job(
    name: str, platform: Platform | None = None, *, by: str | None = None, reason: str | None = None
) -> None:
    """Let a paused job fire again, from now on; `by`, `reason` and errors are as in `pause_job`."""
    async with _connected(platform) as opened:
        _found(name, found=await opened.schedules.resume(name, _actor(opened, by), reason))


def _actor(platform: Platform, by: str | None) -> Actor:
    return Actor.process(platform.name, by or account())


def _trigger(row: Row) -> str:
    return f"every {row['interval_seconds']} s" if row["cron"] is None else f"{row['cron']} {row['timezone']}"


def _found(name: str, *, found: bool) -> None:
    if not found:
        message = f"there is no schedule {name!r}; get_job_status() lists those there are"
        raise ConfigurationError(message)


@asynccontextmanager
async def _connected(platform: Platform | None) -> AsyncIterator[Platform]:
    if platform is not None:
        yield platform
        return
    async with Platform(PlatformSettings(), name="jobs") as opened:
        yield opened
