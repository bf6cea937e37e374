"""SIGTERM ends a session of tests as Ctrl-C does: what was started is stopped, and not left behind."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def heed() -> None:
    """Take SIGTERM for Ctrl-C from now on.

    Call it before each test: an event loop that heard SIGTERM during the last one has put back the kernel's default, by
    which the process dies on the spot.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not _interrupt:
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    if not callable(on_ctrl_c):
        # A shell lets what it starts in the background ignore Ctrl-C.
        raise KeyboardInterrupt
    on_ctrl_c(signal.SIGINT, frame)
