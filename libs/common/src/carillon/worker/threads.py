"""The threads that plain functions run in."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

Work = tuple[Callable[[], Any], asyncio.Future[Any]]


class Threads:
    """As many threads as there are functions running at once; the slots of the worker bound them.

    They are daemons, unlike those of `concurrent.futures`: a function that never returns must not keep a worker that
    has drained from ending. Use it from one event loop.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[SimpleQueue[Work | None]] = []
        self._is_closed = False

    def run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Begin a call, in the caller's context. Cancelling the future does not end it: nothing can."""
        future = asyncio.get_running_loop().create_future()
        bound = contextvars.copy_context().run
        (self._idle.pop() if self._idle else self._start()).put((lambda: bound(call), future))
        return future

    def close(self) -> None:
        """Let every thread end that has nothing to do, and the others when they have returned."""
        self._is_closed = True
        for queue in self._idle:
            queue.put(None)
        self._idle.clear()

    def _start(self) -> SimpleQueue[Work | None]:
        queue: SimpleQueue[Work | None] = SimpleQueue()
        threading.Thread(target=self._work, args=(queue,), name=f"carillon {self._name}", daemon=True).start()
        return queue

    def _work(self, queue: SimpleQueue[Work | None]) -> None:
        while (work := queue.get()) is not None:
            call, future = work
            returned, error = None, None
            try:
                returned = call()
            except BaseException as raised:  # noqa: BLE001 - whatever it was, the attempt ends with it
                error = raised
            try:
                future.get_loop().call_soon_threadsafe(self._done, queue, future, returned, error)
            except RuntimeError:
                # The loop is closed: nobody waits for this any more, and nobody will ask for another.
                return
            # Nothing of the last call is kept while the next one is awaited.
            del work, call, future, returned, error

    def _done(
        self,
        queue: SimpleQueue[Work | None],
        future: asyncio.Future[Any],
        returned: object,
        error: BaseException | None,
    ) -> None:
        if self._is_closed:
            queue.put(None)
        else:
            self._idle.append(queue)
        with suppress(asyncio.InvalidStateError):
            if isinstance(error, StopIteration):
                # No future takes one, as it would end whoever awaits it without a word.
                error = RuntimeError(f"it raised {error!r}")
            if error is None:
                future.set_result(returned)
            else:
                future.set_exception(error)
