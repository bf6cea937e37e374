"""What a task asks for to use the policies: `*, policies: Policies`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from carillon.policies.batch import Batch, Item, Processing, Summary, Value
from carillon.policies.breaker import Breaker
from carillon.policies.breakers import Breakers
from carillon.policies.bulkhead import Bulkhead, Bulkheads
from carillon.policies.effect import Effect
from carillon.policies.effects import Once, Result
from carillon.policies.fallback import Fallback
from carillon.policies.fallback import Value as Known
from carillon.policies.fallbacks import Fallbacks, Sources
from carillon.policies.throttle import Throttle, take_turn

if TYPE_CHECKING:
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics


class Policies:
    """The policies, as one worker process keeps them. Every task can ask for it with `*, policies: Policies`.

    They are for coroutines: a plain function, in a thread or in a process of its own, cannot have it.
    """

    def __init__(self, platform: Platform, metrics: Metrics) -> None:
        self._platform = platform
        self._metrics = metrics
        self._breakers = Breakers(platform, metrics)
        self._fallbacks = Fallbacks(platform, metrics)
        self._bulkheads = Bulkheads(platform, metrics)

    def breaker(self, breaker: Breaker) -> AbstractAsyncContextManager[None]:
        """Call a dependency inside of `async with`; see `Breaker`.

        Raises `CircuitOpenError` before the block where the breaker refuses the call, and `TimeoutError` where the
        block takes longer than the breaker's `timeout`.
        """
        return self._breakers.guard(breaker)

    def bulkhead(self, bulkhead: Bulkhead) -> AbstractAsyncContextManager[None]:
        """Use something inside of `async with` that only so many may use at once; see `Bulkhead`.

        Raises `NoRoomError` before the block where no place is free in time, and `TimeoutError` where the block takes
        longer than the bulkhead's `timeout`. Where the ledger does not answer, nobody enters: its error is raised.
        """
        return self._bulkheads.place(bulkhead)

    async def turn(self, throttle: Throttle) -> None:
        """Return when it is this caller's turn at something that is used at a rate; see `Throttle`.

        Raises `NoTurnError` where that is too far away. Who is cancelled while waiting has used the turn. Where the
        ledger does not answer, there are no turns: its error is raised.
        """
        await take_turn(self._platform, self._metrics, throttle)

    def fallback(self, fallback: Fallback[Known], *, key: str) -> Sources[Known]:
        """Ask several sources, the best first: `await policies.fallback(USERS, key=user)(api=..., replica=...)`.

        Each source is a function without arguments, under its name. The last good value is kept under the key,
        which has the bounds of an effect's. See `Fallback` for what is kept, and `Sources` for what is raised.
        """
        return Sources(self._fallbacks, fallback, key)

    def idempotent(self, effect: Effect[Result], *, key: str) -> Once[Result]:
        """Do an effect once for each key: `await policies.idempotent(CHARGE, key=order)(client.charge, order, 12_00)`.

        The key has at most 255 characters, without control characters. Of the function, its arguments are compared,
        which must be JSON types, moments, ids or pydantic models; see `Effect` for what is kept, and `Once` for what is
        raised.
        """
        return Once(self._platform, self._metrics, effect, key)

    async def batch(
        self,
        batch: Batch,
        do: Callable[[Item], Awaitable[Value]],
        items: Sequence[Item],
        *,
        required: Callable[[Item], bool] | None = None,
    ) -> Summary[Value]:
        """Process up to 10,000 items, some at once, and tell what became of each; the task returns `summary.ended()`.

        `required` tells of an item whether it has to succeed. Raises `InvalidArgumentsError` for more items, and the
        `Cancel` or `Snooze` that an item raises, which is about the whole run.
        """
        summary = await Processing(batch, do, items).summary(required)
        for outcome, ended in (
            ("successful", summary.successful),
            ("failed", summary.failed),
            ("skipped", summary.skipped),
        ):
            self._metrics.batch_items.labels(batch.name, outcome).inc(len(ended))
        return summary

    async def refresh(self) -> None:
        """Look again at what this process knows, and what may have changed elsewhere."""
        await self._breakers.refresh()
