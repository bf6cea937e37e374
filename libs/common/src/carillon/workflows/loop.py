"""The event loop in which the code of a workflow executes: no input, no output, and a clock that the record moves.

It is turned until nothing is left to do, and then waits for what the record says next. So the same record makes the
same code do the same things in the same order, whatever of asyncio it uses: `gather`, `timeout`, `TaskGroup`, queues.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from typing import Any, NoReturn, Protocol

from carillon.errors import OutsideWorkflowError

#: What asyncio's own functions for threads, processes, sockets and signals come to, sooner or later.
_OUTSIDE = (
    "add_reader", "add_signal_handler", "add_writer", "call_soon_threadsafe", "connect_accepted_socket",
    "connect_read_pipe", "connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server",
    "create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "run_in_executor", "sock_accept",
    "sock_connect", "sock_recv", "sock_sendall", "start_tls", "subprocess_exec", "subprocess_shell",
)  # fmt: skip


class Timers(Protocol):
    """What keeps the timers that the code sets."""

    def set_timer(self, timer: WorkflowTimer) -> None:
        """It is to be called back at `timer.when()`."""

    def drop_timer(self, timer: WorkflowTimer) -> None:
        """It is not to be called back any more."""


class WorkflowTimer(asyncio.TimerHandle):
    """A timer of a workflow's code: a sleep or a timeout, which outlasts the process."""

    #: The place of its step in the record.
    seq = 0


class WorkflowLoop(asyncio.AbstractEventLoop):
    """Turns until it is quiet. `moment` is its clock, in seconds of the Unix clock; whoever turns it sets that."""

    def __init__(self, timers: Timers, moment: float) -> None:
        self.moment = moment
        self._timers = timers
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be the running loop of this thread until the block ends. The loop around must not turn meanwhile."""
        around = asyncio._get_running_loop()  # noqa: SLF001 - what asyncio has for those who write event loops
        asyncio._set_running_loop(self)  # noqa: SLF001 - as above
        try:
            yield
        finally:
            asyncio._set_running_loop(around)  # noqa: SLF001 - as above

    def turn(self) -> None:
        """Execute what is ready, and what that makes ready, until nothing is."""
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - what an event loop does with a handle

    def ring(self, timer: WorkflowTimer) -> None:
        """Call back a timer that is due."""
        if not timer.cancelled():
            self._ready.append(timer)

    def leave(self) -> None:
        """Give up what has not ended. Its `finally` is entered, and can do nothing any more."""
        self._ready.clear()
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - it is no accident
                coroutine = task.get_coro()
                if coroutine is not None:
                    with suppress(Exception):
                        coroutine.close()
        self._tasks.clear()

    def time(self) -> float:
        """Seconds of the Unix clock, as of what was told last."""
        return self.moment

    def call_soon(  # type: ignore[override] # as asyncio's own loops have it
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call back in this turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override] # as asyncio's own loops have it
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back after so many seconds."""
        return self.call_at(self.moment + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override] # as asyncio's own loops have it
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at that moment; a timer that is recorded, and outlasts the process."""
        timer = WorkflowTimer(when, callback, args, self, context)
        if when <= self.moment:
            self._ready.append(timer)
        else:
            self._timers.set_timer(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, WorkflowTimer) and handle.seq:
            self._timers.drop_timer(handle)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        """A task of this loop."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        """No: debugging asks for the real time."""
        return False

    def is_running(self) -> bool:
        """Whether it turns just now."""
        return asyncio._get_running_loop() is self  # noqa: SLF001 - as above

    def is_closed(self) -> bool:
        """No: it has nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing: what a step failed with is in its record, whether somebody awaited it or not."""


def refuse_in_workflow(task: str) -> None:
    """Raise `OutsideWorkflowError` where the code of a workflow would submit a run that is not recorded."""
    if isinstance(asyncio._get_running_loop(), WorkflowLoop):  # noqa: SLF001 - it is None outside of any
        message = f"a workflow submits no run with .kiq(): it would be another each time; use flow.step({task}, ...)"
        raise OutsideWorkflowError(message)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(*_: object, **__: object) -> NoReturn:
        message = (
            f"a workflow's code may not use `{name}` of the event loop: it is executed again over its record, and has "
            "no input and no output of its own; do that in a task, and await it with `flow.step(...)`"
        )
        raise OutsideWorkflowError(message)

    return refused


for _name in _OUTSIDE:
    setattr(WorkflowLoop, _name, _refuse(_name))
