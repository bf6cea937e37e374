"""What a task asks for to use the policies: `*, policies: Policies`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from carillon.policies.breaker import Breaker
from carillon.policies.breakers import Breakers

if TYPE_CHECKING:
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics


class Policies:
    """The policies, as one worker process keeps them. Every task can ask for it with `*, policies: Policies`.

    They are for coroutines: a plain function, in a thread or in a process of its own, cannot have it.
    """

    def __init__(self, platform: Platform, metrics: Metrics) -> None:
        self._breakers = Breakers(platform, metrics)

    def breaker(self, breaker: Breaker) -> AbstractAsyncContextManager[None]:
        """Call a dependency inside of `async with`; see `Breaker`.

        Raises `CircuitOpenError` before the block where the breaker refuses the call, and `TimeoutError` where the
        block takes longer than the breaker's `timeout`.
        """
        return self._breakers.guard(breaker)

    async def refresh(self) -> None:
        """Look again at what this process knows, and what may have changed elsewhere."""
        await self._breakers.refresh()
