"""The slots of a worker, and who gets the next one that is free."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count

from carillon.ledger.records import Priority
from carillon.transports.port import PATIENT_EVERY


class Slots:
    """A number of slots, given to the most urgent of those that wait; one in ten to whoever waits longest."""

    def __init__(self, number: int) -> None:
        self.free = number
        self._started = 0
        self._arrivals = count()
        self._waiting: dict[int, deque[tuple[int, asyncio.Future[None]]]] = {
            priority: deque() for priority in sorted(Priority, reverse=True)
        }

    async def take(self, priority: int) -> None:
        """Return when a slot is the caller's, which then has to give it back."""
        if self.free > 0:
            self.free -= 1
            self._started += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append((next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot came together with the cancellation.
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next in turn have the slot."""
        turn = self._next()
        if turn is None:
            self.free += 1
            return
        self._started += 1
        turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        for queue in self._waiting.values():
            while queue and queue[0][1].done():
                queue.popleft()
        waiting = [queue for queue in self._waiting.values() if queue]
        if not waiting:
            return None
        patient = (self._started + 1) % PATIENT_EVERY == 0
        queue = min(waiting, key=lambda queue: queue[0][0]) if patient else waiting[0]
        return queue.popleft()[1]
