"""The harness's own hand: single submits beside the load, in the same ledger."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import SecretStr

import carillon
from carillon.settings import PlatformSettings
from chaos.client import OverPython, Work
from chaos.domain import WORKING, tasks_of
from chaos.journal import SyncedJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from chaos.stage import Stage


def settings_of(stage: Stage) -> PlatformSettings:
    """The settings that the processes of a stage have, for a platform in this one."""
    env = stage.crew.env
    rabbit = env.get("RABBIT_URL")
    return PlatformSettings(
        database_url=SecretStr(env["DATABASE_URL"]),
        redis_url=SecretStr(env["REDIS_URL"]),
        rabbit_url=None if rabbit is None else SecretStr(rabbit),
        rabbit_host=None,
        rabbit_queue_prefix=env.get("RABBIT_QUEUE_PREFIX", "carillon"),
        task_result_backend="postgres",
        storage_url=env["STORAGE_URL"],
    )


@asynccontextmanager
async def hand(stage: Stage) -> AsyncIterator[Callable[[Work], Awaitable[None]]]:
    """Submit by hand; the tasks are those of the newer version."""
    domains = {domain: tasks_of(domain, version=2) for domain in WORKING}
    async with carillon.connect(*domains.values(), settings=settings_of(stage), name="chaos hand"):
        yield OverPython(domains, SyncedJournal(stage.settings.clients)).submit
