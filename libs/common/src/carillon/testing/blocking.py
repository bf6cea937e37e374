"""Awaiting from code that has no event loop, and from code whose event loop is busy running the test."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


def wait_for(work: Coroutine[object, object, Result], *, seconds: float = 60.0) -> Result:
    """Run `work` on an event loop of its own, so that the test's loop neither knows nor minds."""

    async def limited() -> Result:
        async with asyncio.timeout(seconds):
            return await work

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="carillon-wait") as thread:
        return thread.submit(asyncio.run, limited()).result()
