"""What a task can know, say and report of the run it is part of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from pydantic import AwareDatetime
from pydantic_core import to_jsonable_python

from carillon import clock
from carillon.contracts import Event
from carillon.errors import Stopped
from carillon.jsonb import holds_nul, loses_numbers

#: Characters kept of a stage and of a message; what is longer is cut.
MOST_STAGE = 100
MOST_MESSAGE = 500
#: A larger partial result belongs in storage, with its key kept instead.
MOST_KEPT_BYTES = 64 * 1024
#: A beat within this time of the one that was noted is not noted itself, so that beating costs next to nothing.
BEAT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that a run answers."""

    id: str
    type: str
    source: str
    time: AwareDatetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is."""

    #: 0 to 1.
    fraction: float
    #: What it does now, in a word or two: `dump`.
    stage: str | None
    #: A sentence for people: `12 of 30 tables`.
    message: str | None
    #: Seconds that are left if it goes on as it did so far; None before it has got anywhere.
    eta_seconds: float | None
    at: datetime


@dataclass(slots=True)
class Run:
    """The run that a task's code is part of. Ask for it with a keyword-only parameter `run: Run`."""

    id: UUID
    task: str
    domain: str
    attempt: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    cause: Cause | None = None
    said: list[Event] = field(default_factory=list)
    #: The run has to be ended by this moment; what the task submits inherits it.
    deadline_at: datetime | None = None
    #: Why the attempt is to end, in a sentence, once it is.
    stopped: str | None = None
    #: The last that was reported, and the last partial result that was kept, as JSON text.
    reported: Progress | None = None
    kept: str | None = None
    #: The last lines that its code logged, if any, without secrets; `str` of it is the text.
    excerpt: Any = field(default=None, repr=False)
    #: When its attempt began, and was last heard of, on the monotonic clock.
    began: float = field(default_factory=clock.monotonic)
    heard: float = 0.0
    #: When a partial result was last kept, and when it last said that it goes on, to within `BEAT`.
    kept_at: datetime | None = None
    beat_at: datetime | None = None
    #: Called, from whatever thread, when there is something new above.
    listen: Callable[[], None] | None = field(default=None, repr=False)

    def say(self, event: Event) -> None:
        """Say an event when this attempt succeeds; what an attempt said that fails is not said."""
        self.said.append(event)

    def progress(self, fraction: float, *, stage: str | None = None, message: str | None = None) -> None:
        """Report how far this attempt is: a fraction from 0 to 1, what it does, and a sentence for people.

        From any thread, and as often as you like: it is written once a second, and the last one always is. A report
        that cannot be written disturbs nothing. Raises `ValueError` where the fraction is none.
        """
        if not (math.isfinite(fraction) and 0 <= fraction <= 1):
            message = (
                f"progress is a fraction from 0 to 1, not {fraction!r}; divide what is done by what there is to do"
            )
            raise ValueError(message)
        self.heard = now = clock.monotonic()
        left = round((now - self.began) * (1 - fraction) / fraction, 1) if fraction > 0 else None
        at = clock.now()
        self.reported = Progress(float(fraction), _short(stage, MOST_STAGE), _short(message, MOST_MESSAGE), left, at)
        if self.listen is not None:
            self.listen()

    def keep(self, value: Any) -> None:
        """Keep a partial result, for people to see before the run has ended; the last one wins.

        JSON types, pydantic models and events, at most 64 KiB of JSON; raises `ValueError` for anything else.
        """
        try:
            encoded = orjson.dumps(value, default=to_jsonable_python, option=orjson.OPT_NON_STR_KEYS)
        except TypeError as error:
            message = f"the partial result is not JSON ({error}); keep JSON types, pydantic models or events"
            raise ValueError(message) from error
        if loses_numbers(value, encoded):
            message = "the partial result holds a float that is NaN or infinite, which is no JSON; keep None, or a text"
            raise ValueError(message)
        if len(encoded) > MOST_KEPT_BYTES or holds_nul(encoded):
            message = (
                f"the partial result has {len(encoded)} bytes, of which {MOST_KEPT_BYTES} are the most, or holds the "
                "character NUL; keep it in storage, and its key here"
            )
            raise ValueError(message)
        self.heard = clock.monotonic()
        self.kept, self.kept_at = encoded.decode(), clock.now()
        if self.listen is not None:
            self.listen()

    def beat(self) -> None:
        """Say that this attempt goes on, where its task declares `silent_after` and there is no progress to report.

        From any thread, and as often as you like: people see the moment of the last one, to within five seconds.
        """
        self.heard, now = clock.monotonic(), clock.now()
        if self.beat_at is None or now - self.beat_at >= BEAT:
            self.beat_at = now
        if self.listen is not None:
            self.listen()

    @property
    def progress_json(self) -> str | None:
        """What was reported and kept, and when it last beat, as the ledger keeps it; None when there is nothing."""
        if self.reported is None and self.kept is None and self.beat_at is None:
            return None
        fields: dict[str, Any] = {"attempt": self.attempt}
        if self.reported is not None or self.kept is not None:
            at = self.reported.at if self.reported is not None else self.kept_at or clock.now()
            shown = self.reported or Progress(0.0, None, None, None, at)
            fields |= {name: getattr(shown, name) for name in ("stage", "message", "eta_seconds", "at")}
            fields["fraction"] = None if self.reported is None else shown.fraction
        if self.kept is not None:
            fields["partial"] = orjson.Fragment(self.kept)
        if self.beat_at is not None:
            fields["beat_at"] = self.beat_at
        return orjson.dumps(fields).decode()

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is to end: its time is up, somebody cancelled it, or the worker stops.

        A thread cannot be interrupted, so a function that runs in one looks here, or calls `check`, now and then.
        """
        return self.stopped is not None

    def check(self) -> None:
        """Raise `Stopped` when the attempt is to end. Let it through, after cleaning up."""
        if self.stopped is not None:
            raise Stopped(self.stopped)


#: The run whose code executes here: set while a task's code runs, also in its threads and the asyncio tasks it starts.
current_run: ContextVar[Run | None] = ContextVar("current_run", default=None)
#: The run whose attempt goes on here, from before its code is entered until its end is in the ledger: each log line
#: names it.
attempted_run: ContextVar[Run | None] = ContextVar("attempted_run", default=None)


def _short(text: str | None, most: int) -> str | None:
    if text is None:
        return None
    return text[:most].replace("\x00", "\ufffd").encode(errors="replace").decode()
