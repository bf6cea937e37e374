"""Running a service in the test's own event loop, on a platform that is open: real, or in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from carillon.platform import Platform
from carillon.service import Service
from carillon.testing.eventually import eventually
from carillon.testing.memory import MemoryPlatform


@asynccontextmanager
async def running(service: Service, platform: Platform) -> AsyncIterator[asyncio.Task[None]]:
    """Run a service until the block ends, then let it drain; its worker takes runs when the block begins."""
    stop = asyncio.Event()
    before = {row["id"] for row in await platform.history.live_workers()}

    async def has_enrolled() -> bool:
        if process.done():
            await process
        return any(row["id"] not in before for row in await platform.history.live_workers())

    if isinstance(platform, MemoryPlatform):
        service = replace(service, opens=platform.beside)
    process = asyncio.create_task(service.run(stop), name=f"service {service.name}")
    try:
        await eventually(has_enrolled)
        await platform.catalogue.refresh()
        yield process
    finally:
        stop.set()
        await asyncio.wait_for(process, 40)
