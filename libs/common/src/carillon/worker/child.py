"""The program in which plain functions run that may be killed: `python -m carillon.worker.child SOCKET WORKER`.

It executes one run after the other, as the worker orders over the socket. It has no ledger and no transport: what the
code reports and logs goes to the worker, and so does how it ends. It ends with its worker, however that ends.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from queue import SimpleQueue
from typing import Any
from uuid import UUID

import orjson
from opentelemetry import context as otel_context
from pydantic import TypeAdapter

from carillon.contracts import Event
from carillon.errors import Stopped, UnknownTaskError
from carillon.partial import Partial
from carillon.run import Cause, Run, attempted_run, current_run
from carillon.task import Task
from carillon.tasks import Tasks as _Tasks  # noqa: F401 - every domain's module imports it, and a run's time is running then
from carillon.telemetry.logs import configure_logs
from carillon.telemetry.traces import configure_traces, context_of
from carillon.worker.crossing import name_of, packed
from carillon.worker.execution import result_json
from carillon.worker.frames import receive_frame
from carillon.worker.outbox import Outbox, SentExcerpt

#: From <linux/prctl.h>: which signal this process gets when its worker ends. For programs that are not ours,
#: `carillon.embedded.guard` does the same.
PR_SET_PDEATHSIG = 1

_CAUSE = TypeAdapter(Cause)


class Child:
    """Takes orders from its worker until that closes the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._outbox = Outbox(connection)
        self._orders: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        #: The run whose code executes, and the last that was asked to stop, and why.
        self._run: Run | None = None
        self._asked: tuple[str, str] | None = None
        self._is_inside = False
        self._main = threading.get_ident()

    def work(self) -> None:
        """Execute what is ordered, one run at a time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            # By itself neither means anything here: the worker decides what ends. Not ignored, as programs that the
            # code starts would inherit that.
            signal.signal(number, self._interrupt)
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        traces, threads = None, 0
        while (order := self._orders.get()) is not None:
            if (world := order.get("world")) is not None:
                sys.path[:] = world["path"]
                configure_logs(world["domain"], style=world["style"], level=world["level"])
                traces = configure_traces(world["domain"])
                threads = threading.active_count()
            self._outbox.begin()
            answer = contextvars.copy_context().run(self._carry_out, order)
            # Threads that the code left behind would go on beside the next run.
            answer["spent"] = threading.active_count() > threads
            answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self._outbox.end(answer)
        if traces is not None:
            traces.shutdown()

    def _listen(self) -> None:
        while (message := receive_frame(self._connection)) is not None:
            if "stop" in message:
                self._stop(message["stop"]["run"], message["stop"]["reason"])
            else:
                self._orders.put(message)
        if self._run is not None:
            # The worker has gone in the middle of a run, and whatever the code started goes with this.
            os.killpg(0, signal.SIGKILL)
        self._orders.put(None)

    def _stop(self, run: str, reason: str) -> None:
        self._asked = (run, reason)
        signal.pthread_kill(self._main, signal.SIGTERM)

    def _interrupt(self, _number: int, _frame: object) -> None:
        """Raise `Stopped` into the code of the run that is to stop, once; where it sends something, after that."""
        run = self._run
        if run is None or self._asked is None or self._asked[0] != str(run.id) or run.stopped is not None:
            return
        if self._outbox.is_sending:
            self._outbox.afterwards = lambda: self._interrupt(0, None)
            return
        run.stopped = self._asked[1]
        if self._is_inside:
            raise Stopped(run.stopped)

    def _carry_out(self, order: Mapping[str, Any]) -> dict[str, Any]:
        try:
            run = self._run = _run_of(order)
            run.listen = self._outbox.heard
            run.excerpt = SentExcerpt(self._outbox)
            self._outbox.run = run
            attempted_run.set(run)
            if (context := context_of(order["traceparent"])) is not None:
                otel_context.attach(context)
            task = _task_of(order)
            arguments = task.validated(order["arguments"])
            arguments |= dict.fromkeys(task.needs, run)
            self._interrupt(0, None)
            returned = self._execute(task, arguments, run)
            reason = None
            if isinstance(returned, Partial):
                returned, reason = returned.value, str(returned.reason)
            if isinstance(returned, Event):
                run.say(returned)
            result = orjson.Fragment(result_json(returned))
            return {"result": result, "partial": reason, "said": [_told(event) for event in run.said]}
        except Stopped:
            return {"stopped": True}
        except BaseException as error:  # noqa: BLE001 - whatever it was, the attempt ends with it
            return {"error": packed(error)}
        finally:
            self._run = None

    def _execute(self, task: Task[..., Any], arguments: dict[str, Any], run: Run) -> Any:
        run.check()
        current_run.set(run)
        try:
            self._is_inside = True
            return task.original_func(**arguments)
        finally:
            self._is_inside = False


def _run_of(order: Mapping[str, Any]) -> Run:
    given = order["run"]
    return Run(
        id=UUID(given["id"]),
        task=given["task"],
        domain=given["domain"],
        attempt=given["attempt"],
        labels=given["labels"],
        cause=None if given["cause"] is None else _CAUSE.validate_python(given["cause"]),
        deadline_at=None if given["deadline_at"] is None else datetime.fromisoformat(given["deadline_at"]),
    )


def _task_of(order: Mapping[str, Any]) -> Task[..., Any]:
    name = order["run"]["task"]
    found = getattr(import_module(order["module"]), order["function"], None)
    if not isinstance(found, Task) or found.task_name != name:
        message = f"{order['module']}.{order['function']} is not the task {name}; restart the worker, its code changed"
        raise UnknownTaskError(message)
    return found


def _told(event: Event) -> dict[str, Any]:
    return {"kind": name_of(type(event)), "data": event.model_dump(mode="json")}


def _end_with(worker: int) -> None:
    """Let the kernel end this process with its worker, whatever the code is in the middle of."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != worker:
        sys.exit("the worker that asked for this process has ended")


def main(handle: str, worker: str) -> None:
    """Work for the process `worker`, over the socket that is open as the file `handle`."""
    _end_with(int(worker))
    connection = socket.socket(fileno=int(handle))
    connection.set_inheritable(False)
    Child(connection).work()


if __name__ == "__main__":
    main(*sys.argv[1:])
