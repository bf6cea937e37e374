"""One readable log out of many: the children write JSON lines, a person reads `time service level event key=value`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from rich.console import Console
from rich.text import Text
from structlog.typing import EventDict, WrappedLogger

#: A line longer than this, in characters, is cut: it is for reading.
LONGEST = 2000
#: One for each service, in the order in which they first speak.
COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta")
LEVELS = {"debug": "dim", "info": "default", "warning": "yellow", "error": "bold red", "critical": "bold red"}
#: Shown elsewhere in the line, or of no use in it.
PLACED = frozenset({"event", "level", "timestamp", "domain", "exception", "logger", "trace_id"})


class MergedLog:
    """Writes the lines of all services to one place; colours only on a terminal, and never with NO_COLOR."""

    def __init__(self, out: TextIO | None = None, *, width: int = 13) -> None:
        self._console = Console(file=out or sys.stdout, highlight=False, markup=False, soft_wrap=True, emoji=False)
        self._colours: dict[str, str] = {}
        self._width = width

    def line(self, service: str, raw: bytes) -> None:
        """Show one line as a child wrote it."""
        text = raw.decode(errors="replace").rstrip()
        if not text:
            return
        facts = _facts(text)
        if facts is None:
            self._show(service, datetime.now(UTC), "info", text, {})
        else:
            self._show(service, _moment(facts), str(facts.get("level", "info")), str(facts.get("event", "")), facts)

    def say(self, event: str, level: str = "info", **facts: object) -> None:
        """Show a line of `carillon up` itself."""
        self._show("up", datetime.now(UTC), level, event, facts)

    def take_logs(self) -> None:
        """Show what the library logs in this process like every other line."""
        level = structlog.make_filtering_bound_logger(logging.INFO)
        structlog.configure(processors=[structlog.stdlib.add_log_level, self._taken], wrapper_class=level)

    def _taken(self, _: WrappedLogger, __: str, facts: EventDict) -> EventDict:
        self._show("up", datetime.now(UTC), str(facts["level"]), str(facts["event"]), facts)
        raise structlog.DropEvent

    def plain(self, text: str) -> None:
        """Show text as it is."""
        self._console.print(text)

    def _show(self, service: str, moment: datetime, level: str, event: str, facts: Mapping[str, Any]) -> None:
        line = Text()
        line.append(moment.astimezone().strftime("%H:%M:%S "), style="dim")
        line.append(f"{service:<{self._width}} ", style=self._colour(service))
        line.append(f"{level:<8}", style=LEVELS.get(level, "default"))
        line.append(_visible(event), style=LEVELS.get(level, "default"))
        for name, value in facts.items():
            if name not in PLACED and value is not None:
                line.append(f" {name}=", style="dim")
                line.append(_visible(_worded(value)))
        line.truncate(LONGEST, overflow="ellipsis")
        self._console.print(line)
        for told in _exception_lines(facts.get("exception")):
            self._console.print(Text(f"         {'':<{self._width}} {_visible(told)}", style="red"))

    def _colour(self, service: str) -> str:
        return self._colours.setdefault(service, COLOURS[len(self._colours) % len(COLOURS)])


def _facts(text: str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _moment(facts: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(facts["timestamp"]))
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _worded(value: object) -> str:
    if isinstance(value, str):
        return value if value and not set(value) & set(' "=') else orjson.dumps(value).decode()
    return orjson.dumps(value, default=str).decode()


def _visible(text: str) -> str:
    """Without control characters: what a message says must not steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _exception_lines(exception: object) -> list[str]:
    """The errors of a chain, each with the place where it arose."""
    if isinstance(exception, str):
        return exception.splitlines()[-3:]
    if not isinstance(exception, Sequence):
        return []
    return [_told(error) for error in exception if isinstance(error, Mapping)]


def _told(error: Mapping[str, Any]) -> str:
    frames = error.get("frames") or [{}]
    place = f" ({frames[-1].get('filename', '?')}:{frames[-1].get('lineno', '?')})" if frames[-1] else ""
    return f"{error.get('exc_type', 'Error')}: {error.get('exc_value', '')}{place}"
