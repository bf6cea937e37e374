"""Rate limits for what several tasks use: declared, and waited for in the ledger's buckets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from carillon.errors import ConfigurationError, NoTurnError
from carillon.limits import Rate
from carillon.policies.asking import asked
from carillon.policies.bounds import check_name, check_wait

if TYPE_CHECKING:
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Throttle:
    """How often something may be used, over all workers: `CRM = Throttle("crm", Rate(100, per=timedelta(minutes=1)))`.

    ```python
    await policies.turn(CRM)
    await client.update(customer)
    ```

    The rate is what it is for `Limits`, which are for whole tasks: they wait in the ledger, where this one waits in the
    task, with its slot. So let it `wait` for seconds only; beyond that the run is tried again when there is a turn.
    """

    name: str
    rate: Rate
    #: A turn that comes within this time is waited for. Turns are taken in the order in which they were asked for.
    wait: timedelta = timedelta(seconds=5)

    def __post_init__(self) -> None:
        """Refuse a rate limit that could not be kept; raises `ConfigurationError`."""
        check_name("throttle", self.name)
        if not isinstance(self.rate, Rate):
            message = f"the throttle {self.name} has rate={self.rate!r}; write Rate(100, per=timedelta(minutes=1))"
            raise ConfigurationError(message)
        check_wait(f"the throttle {self.name}", self.wait)

    @property
    def every(self) -> timedelta:
        """The time in which one turn comes back."""
        return self.rate.per / self.rate.number


async def take_turn(platform: Platform, metrics: Metrics, throttle: Throttle) -> None:
    """Return when it is this caller's turn; raises `NoTurnError` where that is not within the throttle's `wait`."""
    every, burst = throttle.every, throttle.rate.most_at_once
    taking = platform.ledger.turns.take(throttle.name, every, burst, throttle.wait)
    turn = await asked(taking, "no turn taken", throttle=throttle.name)
    metrics.turns.labels(throttle.name, "taken" if turn.taken else "refused").inc()
    if not turn.taken:
        message = (
            f"the next turn of {throttle.name} is in {turn.after.total_seconds():.1f} s, and "
            f"{throttle.wait.total_seconds():g} s are waited for it; come back then"
        )
        raise NoTurnError(message, retry_after=turn.after)
    if turn.after > timedelta(0):
        await asyncio.sleep(turn.after.total_seconds())
