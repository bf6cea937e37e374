"""The slots of a worker, and who gets the next one that is free."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count

from carillon.ledger.records import Priority
from carillon.transports.port import PATIENT_EVERY

#: How long a slot is kept for the next delivery of a queue that had as many at hand as it may. The broker needs one
#: or two milliseconds to bring it, and this is the most that a queue costs which has just run empty.
ON_ITS_WAY_SECONDS = 0.02

_MOST_URGENT_FIRST = tuple(sorted(Priority, reverse=True))


class Slots:
    """A number of slots, given to the most urgent of those that wait; one in ten to whoever waits longest.

    A queue brings at most `number` deliveries at a time, those that execute among them. When that many are at hand and
    one ends, the next is on its way: so a slot is not given to a less urgent delivery before that one had time to come.
    """

    def __init__(self, number: int) -> None:
        self.free = number
        self._number = number
        self._started = 0
        #: How many had started when the last turn went to whoever waited longest.
        self._patient_at = 0
        #: Of arrivals and of kept slots, in their order.
        self._numbers = count()
        self._waiting: dict[int, deque[tuple[int, asyncio.Future[None]]]] = {
            priority: deque() for priority in _MOST_URGENT_FIRST
        }
        self._at_hand: dict[int, int] = dict.fromkeys(Priority, 0)
        #: Until when another delivery may be on its way, on the clock of the loop.
        self._full_until: dict[int, float] = dict.fromkeys(Priority, 0.0)
        #: Slots that nobody has: the least priority that may have each, until its time is over.
        self._kept: dict[int, tuple[int, asyncio.TimerHandle]] = {}

    async def take(self, priority: int) -> None:
        """Return when a slot is the caller's, which then has to give it back."""
        self._at_hand[priority] += 1
        if self.free > 0:
            self.free -= 1
            self._started += 1
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[priority].append((next(self._numbers), turn))
        if self._end_keeping_for(priority):
            self._pass_on(loop.time())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot came together with the cancellation.
                self.give_back(priority)
            else:
                self._at_hand[priority] -= 1
            raise

    def give_back(self, priority: int) -> None:
        """Let the next in turn have the slot of a delivery of this priority."""
        now = asyncio.get_running_loop().time()
        if self._at_hand[priority] >= self._number:
            self._full_until[priority] = now + ON_ITS_WAY_SECONDS
        self._at_hand[priority] -= 1
        self._pass_on(now)

    def _pass_on(self, now: float) -> None:
        for queue in self._waiting.values():
            while queue and queue[0][1].done():
                queue.popleft()
        waiting = {priority: queue for priority, queue in self._waiting.items() if queue}
        if not waiting:
            self.free += 1
            return
        most_urgent, queue = next(iter(waiting.items()))
        is_patient = self._started - self._patient_at >= PATIENT_EVERY - 1
        if not is_patient and self._keep_from(most_urgent, now):
            return
        self._started += 1
        if is_patient:
            queue = min(waiting.values(), key=lambda queue: queue[0][0])
            self._patient_at = self._started
        queue.popleft()[1].set_result(None)

    def _keep_from(self, priority: int, now: float) -> bool:
        """Keep the slot from deliveries of this priority, if a more urgent one may be on its way."""
        for awaited in _MOST_URGENT_FIRST:
            if awaited <= priority:
                return False
            if (until := self._full_until[awaited]) > now:
                number = next(self._numbers)
                timer = asyncio.get_running_loop().call_at(until, self._end_keeping, number)
                self._kept[number] = awaited, timer
                return True
        return False

    def _end_keeping_for(self, priority: int) -> bool:
        """Take a slot that was kept for a delivery like this, or for a less urgent one."""
        for number, (least, timer) in self._kept.items():
            if priority >= least:
                timer.cancel()
                del self._kept[number]
                return True
        return False

    def _end_keeping(self, number: int) -> None:
        del self._kept[number]
        self._pass_on(asyncio.get_running_loop().time())
