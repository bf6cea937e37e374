"""The code of one attempt while it executes, and how it is stopped: softly first, then for good."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from carillon import clock
from carillon.errors import Cancel, DeadlineExceeded, Hung, Stopped
from carillon.run import current_run
from carillon.task import Task
from carillon.transports.port import Acknowledge
from carillon.worker.call import Call
from carillon.worker.children import Children
from carillon.worker.execution import Execution, RunMessage
from carillon.worker.reports import Reports
from carillon.worker.threads import Threads


class Attempt:
    """One attempt of one run in this worker.

    The code runs in the asyncio task that took the delivery, which holds its slot; so what is given up keeps the slot
    until it has really ended, without anything that counts it. `give_up` is called at the hard end.
    """

    __slots__ = (
        "_call", "_context", "_end", "_give_up", "_interrupts", "_is_inside", "_listener", "_loop", "_task", "_timer",
        "acknowledge", "began", "execution", "given_up_at", "is_over", "message", "reports", "stopped",
        "workflow",
    )  # fmt: skip

    def __init__(
        self, execution: Execution, acknowledge: Acknowledge, give_up: Callable[[Attempt, BaseException], None]
    ) -> None:
        self.execution = execution
        self.acknowledge = acknowledge
        self.message: RunMessage | None = None
        #: Of a task that asks for its run.
        self.reports: Reports | None = None
        #: On the performance counter.
        self.began = 0.0
        #: Why it is to end, once it is; the run ends with it.
        self.stopped: BaseException | None = None
        #: Of a workflow, how its code ended.
        self.workflow: Callable[[], Any] | None = None
        #: On the monotonic clock.
        self.given_up_at: float | None = None
        #: Its code has been left, or was never entered, and its end is being written.
        self.is_over = False
        self._give_up = give_up
        self._is_inside = False
        self._interrupts = 0
        self._timer: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._listener: asyncio.TimerHandle | None = None
        #: Of code that executes in a process.
        self._call: Call | None = None

    @property
    def may_be_stopped(self) -> bool:
        """Whether its end has not begun yet."""
        return self.given_up_at is None and not self.is_over

    async def run(
        self, task: Task[..., Any], arguments: Mapping[str, Any], threads: Threads, children: Children | None
    ) -> Any:
        """Execute the code; returns what it returns, and raises what the attempt fails with.

        In a child where there are `children`, and then the arguments are as JSON says them.
        """
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        # Before the run is the current one: what ends the attempt is no part of it.
        self._context = contextvars.copy_context()
        if children is not None:
            # Its time begins when its code does: what a new process costs is not the code's fault.
            self._call = Call(children, self.execution, arguments, partial(self._set_limits, task))
        self._enter(task)
        token = current_run.set(self.execution.run)
        try:
            if self._call is not None:
                returned = await self._call.result()
            elif task.is_async:
                returned = await task.original_func(**arguments)
            else:
                returned = await threads.run(partial(task.original_func, **arguments))
        except BaseException as raised:
            self._leave()
            meaning = self._meaning(raised)
            if meaning is raised:
                raise
            raise meaning from raised
        finally:
            current_run.reset(token)
        self._leave()
        return returned

    def stop(self, error: BaseException) -> None:
        """Ask the code to end, and see to it; the attempt ends with `error` unless the code returns a result."""
        if self.stopped is None or isinstance(error, Cancel):
            self.stopped = error
        if self.execution.run.stopped is not None:
            return
        self.execution.run.stopped = str(error)
        if not self._is_inside:
            return
        task = self.execution.task
        assert task is not None  # noqa: S101 - its code runs
        if self._call is not None:
            self._call.stop(str(error))
        elif task.is_async:
            self._interrupt()
        elif not isinstance(error, Cancel):
            self._give_it_up()
            return
        self._end = self._loop.call_later(task.grace.total_seconds(), self._give_it_up, context=self._context)

    def _enter(self, task: Task[..., Any]) -> None:
        """Begin, unless it is too late to."""
        deadline = self.execution.delivery.deadline_at
        if self.stopped is not None:
            raise self.stopped
        if deadline is not None and deadline <= clock.now():
            raise _late(deadline)
        self._is_inside = True
        if self._call is None:
            self._set_limits(task)

    def _set_limits(self, task: Task[..., Any]) -> None:
        """Set the time limit, the task's or what is left until the deadline, and listen where the task wants it."""
        seconds, deadline = task.timeout.total_seconds(), self.execution.delivery.deadline_at
        is_deadline = False
        if deadline is not None and (left := (deadline - clock.now()).total_seconds()) < seconds:
            seconds, is_deadline = left, True
        self._timer = self._loop.call_later(seconds, self._time_out, is_deadline, context=self._context)
        if task.silent_after is not None:
            self.execution.run.heard = clock.monotonic()
            self._listen(task.silent_after.total_seconds())

    def _listen(self, seconds: float) -> None:
        """Look again when nothing will have been heard for so long, and stop what was silent since the last look."""
        silent = clock.monotonic() - self.execution.run.heard
        if silent < seconds:
            self._listener = self._loop.call_later(seconds - silent, self._listen, seconds, context=self._context)
            return
        self.stop(Hung(f"it reported nothing for {seconds:g} s, neither progress nor `run.beat()`, and was stopped"))

    def _time_out(self, is_deadline: bool) -> None:
        task, deadline = self.execution.task, self.execution.delivery.deadline_at
        assert task is not None  # noqa: S101 - its code runs
        if is_deadline and deadline is not None:
            self.stop(_late(deadline))
        else:
            self.stop(TimeoutError(f"it ran longer than its timeout of {task.timeout.total_seconds():g} s"))

    def _interrupt(self) -> None:
        assert self._task is not None  # noqa: S101 - the code runs in one
        self._interrupts += 1
        self._task.cancel()

    def _give_it_up(self) -> None:
        assert self.stopped is not None  # noqa: S101 - only what was stopped comes here
        if self._call is not None:
            # It ends with its process, and its slot is free.
            self._call.kill()
            return
        self.given_up_at = clock.monotonic()
        self._give_up(self, self.stopped)
        if self._end is not None and self.execution.task is not None and self.execution.task.is_async:
            # Once more, in case it waits for its own cleaning up.
            self._interrupt()

    def _leave(self) -> None:
        """The code has been left: nothing may interrupt what follows."""
        self._is_inside = False
        for timer in (self._timer, self._end, self._listener):
            if timer is not None:
                timer.cancel()
        while self._interrupts and self._task is not None:
            self._interrupts -= 1
            self._task.uncancel()

    def _meaning(self, raised: BaseException) -> BaseException:
        """What the attempt ends with, given what its code raised."""
        if isinstance(raised, asyncio.CancelledError):
            if self._task is not None and self._task.cancelling():
                # Not by us: the worker drains, and hands the run back. A function in a thread is told.
                self.execution.run.stopped = "the worker stops"
                return raised
            return self.stopped or RuntimeError("its code was cancelled from within: it awaited something cancelled")
        if isinstance(raised, Stopped) or isinstance(self.stopped, Cancel):
            return self.stopped or raised
        return raised


def _late(deadline: datetime) -> DeadlineExceeded:
    return DeadlineExceeded(f"it was not ended by its deadline, {deadline.astimezone(UTC):%F %T} UTC")


def overrun(attempt: Attempt) -> timedelta:
    """How long to leave the run of an attempt alone that was given up and goes on: as long again as it has by now."""
    since = 0.0 if attempt.given_up_at is None else clock.monotonic() - attempt.given_up_at
    return timedelta(seconds=min(max(since, 1.0), 600.0))
