"""The five patterns in ten lines: `python -m orders.tour`. It runs in memory, by a held clock, and asks no server."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from carillon.testing import Rehearsal
from orders.remembered import RememberedStore
from orders.scenarios import World
from orders.tasks import (
    CARRIER,
    call_external_api_with_circuit_breaker,
    fetch_user_data_with_fallback,
    idempotent_payment,
    process_batch_with_partial_success,
    tasks,
)
from orders.warehouse import Delivery
from orders.workflows import payment_saga

if TYPE_CHECKING:
    from carillon import Task
    from carillon.testing import RehearsedRun

#: Each run has ended after this, its retries and their pauses included.
SOON = timedelta(seconds=20)
#: When the breaker has let a probe pass, and the runs that waited for it.
LATER = timedelta(minutes=5)
LABEL_WIDTH = 20


class Tour:
    """A world, and what is done and told of it."""

    def __init__(self) -> None:
        self._world = World(RememberedStore(Delivery(id="first", item="bell", units=3)))

    async def take(self) -> None:
        """Show the patterns, one after the other."""
        async with Rehearsal(tasks, resources=self._world.resources) as self._rehearsal:
            await self._saga()
            await self._breaker()
            await self._fallback()
            await self._batch()
            await self._twice()
        wrong = self._world.effects()["wrong"]
        _say("In the end", f"{self._left()}; {'; '.join(wrong) or 'nothing is wrong'}")

    async def _saga(self) -> None:
        good = await self._ran(payment_saga, order_id="order_123", user_id="ada", amount=99.99)
        _say("Saga", f"{good.result['order']} is {good.result['status']}: {self._left()}")
        bad = await self._ran(payment_saga, order_id="order_124", user_id="nowhere-man", amount=99.99)
        undone = ", ".join(bad.result["compensations"])
        _say("Saga, rolled back", f"{bad.result['reason'].partition(';')[0]}: {undone}; {self._left()}")

    async def _breaker(self) -> None:
        away, asked = self._world.partners.away, self._world.partners.asked
        away.add("carrier")
        first = await self._ran(call_external_api_with_circuit_breaker, order_id="order_123")
        refused = await self._ran(call_external_api_with_circuit_breaker, order_id="order_125")
        told = (refused.attempts[-1].error or {})["message"]
        _say("Circuit breaker", f"after {CARRIER.failures} failures the carrier is left alone: {told}")
        away.clear()
        await self._rehearsal.advance(LATER)
        ended = [self._rehearsal.run(run.id) for run in (first, refused)]
        _say("... later", f"both runs are {_both(ended)}, and the carrier was asked {asked['carrier']} times in all")

    async def _fallback(self) -> None:
        away = self._world.partners.away
        for label in ("Fallback", "... degraded", "... and more so"):
            run = await self._ran(fetch_user_data_with_fallback, user_id="ada")
            answer = run.result
            how = f"degraded, because {answer['reason']}" if answer["degraded"] else "fresh"
            _say(label, f"{answer['value']['name']}, by {answer['source']}, {how}")
            away.add("copy" if away else "directory")

    async def _batch(self) -> None:
        units = {"a": 5, "b": 0, "c": 2}
        arrived = [Delivery(id=name, item="gong", units=number) for name, number in units.items()]
        run = await self._ran(process_batch_with_partial_success, deliveries=arrived)
        good, bad = run.result["successful"], run.result["failed"]
        _say("Partial success", f"the run is {run.state}: {len(good)} deliveries put away; {bad[0]['reason']}")

    async def _twice(self) -> None:
        payment = {"idempotency_key": "gift-7", "user_id": "ada", "amount": 5.0}
        runs = [await self._ran(idempotent_payment, **payment) for _ in range(2)]
        same = "the same" if runs[0].result == runs[1].result else "another"
        taken = self._world.bank.now()["gift-7"]
        _say("Idempotency", f"paid twice with one key: {same} result, and {taken} cents taken")

    async def _ran(self, task: Task[..., Any], **arguments: Any) -> RehearsedRun:
        submitted = await task.kiq(**arguments)
        await self._rehearsal.advance(SOON)
        return self._rehearsal.run(submitted)

    def _left(self) -> str:
        effects = self._world.effects()
        stock, shipped = (effects[part].get("bell", 0) for part in ("in stock", "shipped"))
        return f"{stock} bells in stock, {shipped} shipped, {sum(effects['taken'].values())} cents taken"


def _both(runs: list[RehearsedRun]) -> str:
    return " and ".join(sorted({str(run.state) for run in runs}))


def _say(label: str, told: str) -> None:
    sys.stdout.write(f"{label:<{LABEL_WIDTH}}{told}\n")


def _silence_logs() -> None:
    """What fails on the way fails on purpose."""

    def drop(*_: object) -> NoReturn:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    logging.disable()


if __name__ == "__main__":
    _silence_logs()
    asyncio.run(Tour().take())
