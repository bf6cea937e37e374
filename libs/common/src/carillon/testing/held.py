"""A clock that stands still until it is moved, and the timers of an event loop that hang on it."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

#: How the threads of asyncio's executor and those of Carillon's workers are called.
KNOWN_THREADS = ("asyncio_", "carillon ")

#: Whether what executes lives by the held clock: a worker and its tasks do, the test and its own tasks do not.
_lives_by_it: ContextVar[bool] = ContextVar("lives_by_the_held_clock", default=False)


class HeldTimer(asyncio.TimerHandle):
    """A timer that hangs on a held clock."""

    def fire(self) -> None:
        """Call back, unless that was cancelled."""
        if not self.cancelled():
            self._run()


class HeldClock:
    """A clock that only `move_to` moves."""

    def __init__(self, at: datetime) -> None:
        self._began = at.astimezone(UTC)
        self._elapsed = timedelta(0)
        self._timers: list[tuple[timedelta, int, HeldTimer]] = []
        self._made = count()

    def now(self) -> datetime:
        """The moment at which it stands."""
        return self._began + self._elapsed

    def monotonic(self) -> float:
        """Seconds since it was made."""
        return self._elapsed.total_seconds()

    def next_timer(self) -> datetime | None:
        """When the next timer is due."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._began + self._timers[0][0] if self._timers else None

    def fire_all(self) -> None:
        """Let every timer fire, whenever it is due."""
        while self._timers:
            heapq.heappop(self._timers)[2].fire()

    def move_to(self, moment: datetime) -> None:
        """Let it be that moment, and let the timers fire that are due by then, in their order."""
        self._elapsed = max(self._elapsed, moment - self._began)
        while (due := self.next_timer()) is not None and due <= self.now():
            timer = heapq.heappop(self._timers)[2]
            asyncio.get_running_loop().call_soon(timer.fire)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None) -> HeldTimer:
        """A timer for that many seconds of this clock."""
        loop = asyncio.get_running_loop()
        timer = HeldTimer(when, callback, args, loop, context)
        due = timedelta(seconds=min(when, timedelta.max.total_seconds() / 2))
        if due <= self._elapsed:
            loop.call_soon(timer.fire)
        else:
            heapq.heappush(self._timers, (due, next(self._made), timer))
        return timer


class HeldLoop:
    """An event loop of which a part lives by a held clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: HeldClock) -> None:
        if not isinstance(loop, asyncio.BaseEventLoop) or not hasattr(loop, "_ready"):
            message = f"a rehearsal looks into asyncio's own event loop, and does not know {type(loop).__name__}"
            raise TypeError(message)
        self._loop: Any = loop
        self._clock = clock
        #: Calls in the threads of an executor.
        self._in_threads = 0
        self._threads_before = set(threading.enumerate())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is about to execute. Ask after a turn of the loop, `await asyncio.sleep(0)`."""
        return not self._loop._ready  # noqa: SLF001 - nobody else knows

    @property
    def waits_outside(self) -> bool:
        """Whether something may come from a thread, or from a socket."""
        # One descriptor is the loop's own.
        sockets = len(self._loop._selector.get_map()) - 1  # noqa: SLF001 - as above
        return self._in_threads > 0 or sockets > 0 or any(map(self._is_strange, threading.enumerate()))

    def _is_strange(self, thread: threading.Thread) -> bool:
        """Whether a thread began meanwhile, and is none of those of which is known whether they do something."""
        return thread not in self._threads_before and not thread.name.startswith(KNOWN_THREADS)

    @staticmethod
    def context() -> Context:
        """A context for what is to live by the held clock."""
        context = copy_context()
        context.run(_lives_by_it.set, True)
        return context

    def hold(self) -> None:
        """Let what executes in such a context sleep, and time out, by the held clock."""
        loop, clock = self._loop, self._clock
        time, call_at, run_in_executor = loop.time, loop.call_at, loop.run_in_executor

        def held_time() -> float:
            return clock.monotonic() if _lives_by_it.get() else time()

        def held_call_at(
            when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
        ) -> asyncio.TimerHandle:
            if _lives_by_it.get():
                return clock.call_at(when, callback, *args, context=context)
            timer: asyncio.TimerHandle = call_at(when, callback, *args, context=context)
            return timer

        def counted(executor: Any, function: Callable[..., Any], *args: Any) -> Any:
            future = run_in_executor(executor, function, *args)
            if _lives_by_it.get():
                self._in_threads += 1
                future.add_done_callback(self._has_returned)
            return future

        loop.time, loop.call_at, loop.run_in_executor = held_time, held_call_at, counted

    def let_go(self) -> None:
        """Let everything live by the real clock again. Timers that hang on the held one stay there."""
        for name in ("time", "call_at", "run_in_executor"):
            vars(self._loop).pop(name, None)

    def _has_returned(self, _: object) -> None:
        self._in_threads -= 1
