"""Waiting in tests for what another process or task will do, with a deadline and a sentence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

#: Between two looks; short enough to cost nothing, long enough not to be load.
LOOK_SECONDS = 0.02


async def eventually(look: Callable[[], Awaitable[Found]], *, within: float = 15) -> Found:
    """Look until what is seen is true, and return it; raises AssertionError with the last sight after `within` s."""
    deadline = time.monotonic() + within
    while True:
        seen = await look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s; last seen: {seen!r}")
        await asyncio.sleep(LOOK_SECONDS)
