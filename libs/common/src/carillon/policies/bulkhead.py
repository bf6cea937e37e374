"""Bulkheads: at most so many uses of something at once, in one process and over all workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from carillon import clock
from carillon.errors import ConfigurationError, NoRoomError
from carillon.ids import new_id
from carillon.limits import check_number
from carillon.policies.asking import NO_ANSWER, asked
from carillon.policies.bounds import check_name, check_span, check_wait
from carillon.policies.circuit import SLACK

if TYPE_CHECKING:
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics

#: Pause between two looks for a place that another process may have left, give or take a half.
LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """How many uses of something there may be at once: `PDF = Bulkhead("pdf", most=8, here=2)`.

    ```python
    async with policies.bulkhead(PDF):
        await render(report)
    ```

    For whole tasks there are `Limits(concurrency=8)`, under which runs wait in the ledger: this one waits in the task,
    with its slot, and is for what several tasks use. A place whose worker died is free five seconds after `timeout`.
    """

    name: str
    _: KW_ONLY
    #: Over all workers; None for no limit, which asks no server.
    most: int | None = None
    #: In each process.
    here: int | None = None
    #: So long a place is waited for.
    wait: timedelta = timedelta(seconds=10)
    #: What takes longer is ended with a `TimeoutError`.
    timeout: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        """Refuse a bulkhead that could not be kept; raises `ConfigurationError`."""
        check_name("bulkhead", self.name)
        limits = [(name, number) for name in ("most", "here") if (number := getattr(self, name)) is not None]
        if not limits:
            message = f"the bulkhead {self.name} limits nothing; give most, over all workers, or here, in each process"
            raise ConfigurationError(message)
        for name, number in limits:
            check_number(name, number)
        check_wait(f"the bulkhead {self.name}", self.wait)
        check_span(f"the bulkhead {self.name}", "timeout", self.timeout)


class Bulkheads:
    """The bulkheads that the tasks of one process use."""

    def __init__(self, platform: Platform, metrics: Metrics) -> None:
        self._places = platform.ledger.places
        self._metrics = metrics
        self._here: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def place(self, bulkhead: Bulkhead) -> AsyncIterator[None]:
        """Have a place; raises `NoRoomError` where there is none in time, and `TimeoutError` in the block."""
        until = clock.monotonic() + bulkhead.wait.total_seconds()
        here = self._here.get(bulkhead.name)
        if here is None:
            # No more can be here than everywhere; so that those who wait here are woken when one leaves.
            most = min(number for number in (bulkhead.here, bulkhead.most) if number is not None)
            here = self._here[bulkhead.name] = asyncio.Semaphore(most)
        try:
            async with asyncio.timeout(bulkhead.wait.total_seconds()):
                await here.acquire()
        except TimeoutError:
            raise self._full(bulkhead) from None
        try:
            owner = new_id()
            await self._enter(bulkhead, owner, until)
            try:
                self._metrics.places.labels(bulkhead.name, "taken").inc()
                async with asyncio.timeout(bulkhead.timeout.total_seconds()):
                    yield
            finally:
                await self._leave(bulkhead, owner)
        finally:
            here.release()

    async def _enter(self, bulkhead: Bulkhead, owner: UUID, until: float) -> None:
        """Have one of the places of all workers."""
        if bulkhead.most is None:
            return
        for_ = bulkhead.timeout + SLACK
        while not await asked(
            self._places.take(bulkhead.name, bulkhead.most, owner, for_), "no place taken", bulkhead=bulkhead.name
        ):
            left = until - clock.monotonic()
            if left <= 0:
                raise self._full(bulkhead)
            await asyncio.sleep(min(left, LOOK_SECONDS * random.uniform(0.5, 1.5)))  # noqa: S311 - spreads load

    async def _leave(self, bulkhead: Bulkhead, owner: UUID) -> None:
        if bulkhead.most is not None:
            with suppress(*NO_ANSWER):
                await asked(self._places.leave(owner), "place not left", bulkhead=bulkhead.name)

    def _full(self, bulkhead: Bulkhead) -> NoRoomError:
        self._metrics.places.labels(bulkhead.name, "refused").inc()
        message = (
            f"no place of the bulkhead {bulkhead.name} was free within {bulkhead.wait.total_seconds():g} s; the run is "
            "tried again, or give it more places"
        )
        return NoRoomError(message)
