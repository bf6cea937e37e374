"""A domain whose functions run in processes: a module of its own, because those processes import it by name."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import structlog

from carillon import NEVER, Partial, Retry, Run, Tasks
from carillon.contracts import Event
from carillon.errors import Cancel, PermanentError, Snooze, Stopped, TransientError

log = structlog.get_logger(__name__)
tasks = Tasks("press")

SOON = timedelta(milliseconds=300)
QUICK = Retry(attempts=2, base=timedelta(milliseconds=10), cap=timedelta(milliseconds=20))
#: More of a result than the ledger keeps.
MUCH = 1_000_000


class Pressed(Event):
    """Said by the press."""

    type: ClassVar[str] = "press.pressed.v1"

    sheets: int


class JamError(ValueError):
    """Its constructor wants more than a text, and leaves a mark when it is called."""

    made = 0

    def __init__(self, sheet: int, *, where: str) -> None:
        super().__init__(f"sheet {sheet} is stuck at {where}")
        JamError.made += 1
        self.sheet = sheet

    def __str__(self) -> str:
        return f"sheet {self.sheet}: {self.args[0]}"


class BusyError(Exception):
    """Names when to come back, as clients of HTTP do."""

    def __init__(self) -> None:
        super().__init__("busy")
        self.retry_after = 0.05


@tasks.task(process=True, retry=NEVER)
def add(a: int, b: int = 2) -> int:
    """Add. Safe to run twice: it only returns."""
    return a + b


@tasks.task(process=True, retry=NEVER)
def who(*, run: Run) -> dict[str, Any]:
    """Say in which process this is, and what it knows. Safe to run twice: it only returns."""
    return {
        "pid": os.getpid(),
        "argv": sys.argv,
        "run": str(run.id),
        "labels": dict(run.labels),
        "attempt": run.attempt,
    }


@tasks.task(process=True, timeout=SOON, grace=SOON, retry=NEVER)
def spin(note: str) -> None:
    """Never end, whatever is raised. Safe to run twice: it writes its own process id."""
    Path(note).write_text(str(os.getpid()))
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001, S110 - that is the point
            pass


@tasks.task(process=True, timeout=SOON, grace=SOON, retry=NEVER)
def hold_everything(note: str) -> None:
    """Sleep in C without letting any other thread of the process run. Safe to run twice: it sleeps."""
    Path(note).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


@tasks.task(process=True, retry=NEVER)
def hold_on(note: str) -> None:
    """The same, without an end. Safe to run twice: it sleeps."""
    Path(note).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


@tasks.task(process=True, timeout=SOON, grace=timedelta(seconds=10), retry=NEVER)
def tidy_up(note: str) -> None:
    """Wait and clean up. Safe to run twice: it writes the same."""
    try:
        while True:
            time.sleep(600)
    except Stopped as stopped:
        Path(note).write_text(f"tidied: {stopped}")
        raise


@tasks.task(process=True, grace=timedelta(seconds=10), retry=NEVER)
def wait_for_a_person(note: str, *, run: Run) -> None:
    """Wait until cancelled. Safe to run twice: it writes the same."""
    run.progress(0.25, stage="waiting", message="for a person")
    run.keep({"so far": 1})
    Path(note).write_text(str(os.getpid()))
    while not run.cancelled:
        try:
            time.sleep(0.01)
        except Stopped:
            Path(note).write_text(f"told: {run.stopped}")
            raise


@tasks.task(process=True, retry=QUICK)
def die(how: str, *, run: Run) -> str:
    """Die in a given way, the first time. Safe to run twice: that is what it is for."""
    log.info("about to die", how=how)
    if run.attempt > 1:
        return "lived"
    if how == "exit":
        os._exit(7)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
    return "no"


@tasks.task(process=True, retry=NEVER)
def leave_a_child(note: str) -> None:
    """Start a program and die. Safe to run twice: it writes what it started."""
    started = subprocess.Popen(["sleep", "600"])
    Path(note).write_text(str(started.pid))
    os._exit(1)


@tasks.task(process=True, retry=NEVER)
def return_what(what: str) -> object:
    """Return what may not be kept. Safe to run twice: it only returns."""
    return {"much": "x" * MUCH, "large": "x" * 200_000, "object": object(), "event": Pressed(sheets=3)}[what]


@tasks.task(process=True, retry=Retry(attempts=3, base=timedelta(minutes=9), rules={JamError: NEVER}))
def fail(how: str, *, run: Run) -> str:
    """Raise. Safe to run twice: it only raises."""
    if run.attempt > 1:
        return f"attempt {run.attempt}"
    errors = {
        "permanent": lambda: PermanentError("it can never work"),
        "transient": lambda: TransientError("the floor is wet", retry_after=timedelta(milliseconds=50)),
        "snooze": lambda: Snooze(timedelta(milliseconds=50)),
        "cancel": lambda: Cancel("nobody wants it"),
        "busy": BusyError,
        "jam": lambda: JamError(7, where="the roller"),
        "exit": lambda: SystemExit(3),
    }
    error = errors[how]()
    raise error


@tasks.task(process=True, retry=NEVER)
def write_down(*, run: Run) -> None:
    """Log and print. Safe to run twice: it only logs."""
    log.info("a fact", sheets=7, api_token="t0psecret")
    run.say(Pressed(sheets=1))


@tasks.task(process=True, retry=NEVER)
def leave_a_thread() -> int:
    """Leave a thread behind. Safe to run twice: it only returns."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


@tasks.task(process=True, silent_after=SOON, grace=SOON, retry=QUICK)
def fall_silent(beats: bool, *, run: Run) -> str:
    """Beat, or do not. Safe to run twice: it only waits."""
    for _ in range(10):
        time.sleep(0.1)
        if beats:
            run.beat()
    return "heard"


@tasks.task(process=True)
def press_what_is_there(sheets: int) -> Partial[int]:
    """Press fewer sheets than there should be. Safe to run twice: it only returns."""
    return Partial(sheets - 1, reason="one sheet is missing")
