"""The last lines that an attempt logs, for whoever looks at the run. Secrets are taken out here, and nowhere later."""

from __future__ import annotations

import logging
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, WrappedLogger

from carillon import clock
from carillon.run import current_run

#: Lines and characters kept of an attempt, and characters of one line.
MOST_LINES = 50
MOST_CHARACTERS = 4_000
MOST_LINE = 1_000
#: A line is searched for secrets this far; nothing after it is kept.
LOOKED_AT = 16_384

#: What stands in the place of a secret.
HIDDEN = "***"
#: What the run says of itself, or what every line has.
_KNOWN = frozenset({"event", "level", "timestamp", "run", "task", "attempt", "domain", "trace_id", "logger"})
_KEY = r"(?:pass(?:word|wd|phrase)|pwd|secret|token|authorization|api[_-]?key|private[_-]?key|credential|cookie|dsn)"
_SECRET_KEY = re.compile(_KEY, re.IGNORECASE)
_SECRETS = (
    # scheme://user:password@host; a password may hold anything but a blank.
    (re.compile(r"(://[^\s:/@]{0,255}):\S{0,2000}@"), rf"\1:{HIDDEN}@"),
    # key=value, key: value, "key": "value", and Authorization: Bearer value.
    (
        re.compile(
            rf"({_KEY}[\w-]{{0,64}}[\"']?\s{{0,8}}[=:]\s{{0,8}})"
            r"(?:b?\"(?:[^\"\\]|\\.)*\"?|b?'(?:[^'\\]|\\.)*'?|(?:(?:bearer|basic|token)\s+)?[^\s,;&})\]]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
)


def redacted(text: str) -> str:
    """The text without what obviously is a secret: values of telling names, credentials in headers and in URLs."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class Excerpt:
    """The last lines of one attempt, at most 50 and 4,000 characters."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def add(self, level: str, text: str, facts: Mapping[str, object] | None = None) -> None:
        """Keep one line, and of a long one its beginning."""
        told = [f"{name}={_value(name, value)}" for name, value in (facts or {}).items() if name not in _KNOWN]
        line = redacted(" ".join([text, *told])[:LOOKED_AT])[:MOST_LINE].replace("\n", " | ")
        self.append(f"{clock.now():%H:%M:%S.%f}"[:-3] + f" {level:<7} {line}")

    def append(self, line: str) -> None:
        """Keep a line as it is."""
        self._lines.append(line.replace("\x00", "\ufffd").encode(errors="replace").decode())

    def __str__(self) -> str:
        kept: deque[str] = deque()
        room = MOST_CHARACTERS
        for line in reversed(list(self._lines)):
            room -= len(line) + 1
            if room < -1:
                break
            kept.appendleft(line)
        return "\n".join(kept)


class ExcerptHandler(logging.Handler):
    """Gives each line that an attempt logs, in whatever way, to the run that it belongs to."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, where a task's code logged it."""
        run = current_run.get()
        if run is None:
            return
        try:
            if isinstance(record.msg, dict):
                _keep(record.levelname.lower(), record.msg)
                return
            facts = {"exception": _told(record.exc_info[1])} if record.exc_info and record.exc_info[1] else None
            excerpt_of_current().add(record.levelname.lower(), record.getMessage(), facts)
        except Exception:  # noqa: BLE001 - as every handler: a line that cannot be rendered is told of, and passed over
            self.handleError(record)


def keep_line(_: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Do the same as a processor of structlog, where its lines do not go through the standard library's logging."""
    if current_run.get() is not None:
        _keep(method, event)
    return event


@contextmanager
def kept_lines() -> Iterator[None]:
    """Keep lines in a process whose logs were not configured by `configure_logs`: that of a test."""
    handler, processors = ExcerptHandler(), structlog.get_config()["processors"]
    root, is_ours = logging.getLogger(), structlog.get_config()["logger_factory"]
    if any(isinstance(each, ExcerptHandler) for each in root.handlers):
        yield
        return
    root.addHandler(handler)
    through_structlog = not isinstance(is_ours, structlog.stdlib.LoggerFactory)
    if through_structlog:
        processors.insert(0, keep_line)
    try:
        yield
    finally:
        root.removeHandler(handler)
        if through_structlog:
            processors.remove(keep_line)


def excerpt_of_current() -> Excerpt:
    """The excerpt of the run whose code executes here, made when it logs its first line."""
    run = current_run.get()
    assert run is not None  # noqa: S101 - whoever asks has looked
    if not isinstance(run.excerpt, Excerpt):
        run.excerpt = Excerpt()
    return run.excerpt


def _keep(level: str, event: Mapping[str, object]) -> None:
    facts = {name: value for name, value in event.items() if not name.startswith("_")}
    error = facts.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple) and len(error) > 1:
        error = error[1]
    if isinstance(error, BaseException):
        facts["exception"] = _told(error)
    excerpt_of_current().add(level, str(event.get("event", "")), facts)


def _told(error: object) -> str:
    return f"{type(error).__name__}: {error}"


def _value(name: str, value: object) -> str:
    if _SECRET_KEY.search(name):
        return HIDDEN
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if " " in text and isinstance(value, str) else text
