"""What a child process sends to its worker: reports ten times a second at most, and how a run ended."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from carillon.errors import PermanentError
from carillon.run import Run
from carillon.telemetry.excerpt import MOST_LINES, Excerpt
from carillon.worker.crossing import packed
from carillon.worker.frames import framed

#: Between two reports of a run. The first after a pause goes at once, in the thread that made it, so that it arrives
#: also when the next line of the code kills the process.
PAUSE_SECONDS = 0.1


class Outbox:
    """The sending side of a child's socket. A signal must not cut what the main thread sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reporting, self._sending = threading.Lock(), threading.Lock()
        self._later = threading.Event()
        self._sent_at = -PAUSE_SECONDS
        self._last: tuple[object, object, object] = (None, None, None)
        self.run: Run | None = None
        #: Logged, and not sent yet; the worker keeps no more of a run than this.
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        #: Whether the main thread is sending, and what it is to do after that.
        self.is_sending = False
        self.afterwards: Callable[[], None] | None = None
        threading.Thread(target=self._send_later, name="reports", daemon=True).start()

    def begin(self) -> None:
        """Say that a run begins."""
        self.run, self._last = None, (None, None, None)
        self._lines.clear()
        self._send({"begun": True})

    def end(self, answer: Mapping[str, Any]) -> None:
        """Say how the run ended, after all that it reported."""
        self._report()
        self.run = None
        try:
            self._send({"end": answer})
        except ValueError as error:
            self._send({"end": {"error": packed(PermanentError(str(error))), "spent": True, "peak_bytes": 0}})

    def heard(self) -> None:
        """Something was reported, from whatever thread."""
        if time.monotonic() - self._sent_at >= PAUSE_SECONDS:
            self._report()
        else:
            self._later.set()

    def line(self, line: str) -> None:
        """A line was logged."""
        self._lines.append(line)
        self.heard()

    def _send_later(self) -> None:
        while self._later.wait():
            time.sleep(PAUSE_SECONDS)
            self._later.clear()
            self._report()

    def _report(self) -> None:
        with self._reporting:
            if (run := self.run) is None:
                return
            report: dict[str, Any] = {"log": [self._lines.popleft() for _ in range(len(self._lines))]}
            reported, kept, beat = run.reported, run.kept, run.beat_at
            if reported is not self._last[0]:
                report["progress"] = reported
            if kept is not self._last[1]:
                report["kept"] = kept
            if beat is not self._last[2]:
                report["beat"] = beat
            self._last = (reported, kept, beat)
            self._sent_at = time.monotonic()
            self._send({"report": report})

    def _send(self, message: Mapping[str, Any]) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        data = framed(message)
        with self._sending:
            try:
                self.is_sending = is_main or self.is_sending
                self._connection.sendall(data)
            except OSError:
                # The worker has gone, and this process is about to.
                return
            finally:
                if is_main:
                    self.is_sending = False
        if is_main and (afterwards := self.afterwards) is not None:
            self.afterwards = None
            afterwards()


class SentExcerpt(Excerpt):
    """The log of an attempt, kept by its worker."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def append(self, line: str) -> None:
        """Send a line as it is."""
        self._outbox.line(line)
