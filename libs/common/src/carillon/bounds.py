"""What the options of submits and of tasks may be. The bounds are the same from Python, over HTTP and in a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from carillon.errors import InvalidOptionError

#: For how long a unique run keeps others out, and what becomes of a submit that is kept out.
Until = Literal["started", "ended"]
OnConflict = Literal["keep", "replace", "reject"]
#: When a run that waits for others goes on, and what happens when that cannot be.
When = Literal["succeeded", "ended", "any"]
Otherwise = Literal["cancel", "run"]

#: Characters of a key: of four bytes each they fit into PostgreSQL's indexes, whose entries have 2,704 bytes.
MOST_KEY = 255
#: A key is text that can be printed and kept: no line breaks, no NUL.
NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*$"
#: No run needs more others.
MOST_NEEDS = 1_000
#: Nothing is put off, kept or allowed for longer.
LONGEST = timedelta(days=365)
#: How far back `run_at` may lie: a caller's queue may have held the submit for a while.
LATE = timedelta(days=1)
_PORT = r"6553[0-5]|655[0-2]\d|65[0-4]\d\d|6[0-4]\d{3}|[1-5]\d{4}|[1-9]\d{0,3}"
#: An http or https URL with a host and no password; where it leads is looked at by whoever calls it.
CALLBACK_URL = rf"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:({_PORT}))?([/?][!-~]*)?$"
MOST_URL = 2_000

#: Names of labels that steer Taskiq or a broker, or that a mail or AMQP header would be made of.
_RESERVED = (
    "ack_type", "bcc", "cc", "correlation_id", "delay", "exchange", "expiration", "max_retries", "priority", "queue",
    "queue_name", "reply_to", "retry_on_error", "routing_key", "schedule", "schedule_id", "task_id", "tenant",
    "timeout", "traceparent", "tracestate", "x-.*",
)  # fmt: skip
LABEL = rf"^(?!({'|'.join(_RESERVED)})$)[a-z][a-z0-9_.-]{{0,62}}$"
#: What a label must be named, in words.
LABEL_MUST = "named in lower case, and not like what steers a queue or a header (cc, x-..., task_id)"
MOST_LABELS = 20
MOST_LABEL = 200

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_word(option: str, value: object, words: Sequence[str]) -> None:
    """Refuse what is none of the words; raises `InvalidOptionError`, as all of these."""
    if not isinstance(value, str) or value not in words:
        raise InvalidOptionError(option, f"be one of {', '.join(words)}", value)


def check_key(option: str, value: object) -> None:
    """Refuse a key that could not be kept, or found again."""
    if not isinstance(value, str) or not 1 <= len(value) <= MOST_KEY:
        raise InvalidOptionError(option, f"be a text of 1 to {MOST_KEY} characters", value)
    if not re.fullmatch(NO_CONTROLS, value) or _SURROGATE.search(value):
        raise InvalidOptionError(option, "be free of control characters and of half characters (surrogates)", value)


def check_own_labels(labels: Mapping[str, object]) -> None:
    """Refuse labels that could not be kept, or by which nobody could search."""
    if len(labels) > MOST_LABELS:
        raise InvalidOptionError("labels", f"have at most {MOST_LABELS} members", len(labels))
    for name, value in labels.items():
        if not isinstance(name, str) or not re.fullmatch(LABEL, name):
            raise InvalidOptionError("labels", f"be {LABEL_MUST}", name)
        text = str(value)
        if len(text) > MOST_LABEL or not re.fullmatch(NO_CONTROLS, text) or _SURROGATE.search(text):
            must = f"have at most {MOST_LABEL} characters, none of them a control or half a character"
            raise InvalidOptionError(f"labels.{name}", must)


def check_span(option: str, value: object, *, least: timedelta = timedelta(0)) -> timedelta:
    """The span, if it is one from `least` to a year."""
    if not isinstance(value, timedelta):
        raise InvalidOptionError(option, "be a timedelta, such as timedelta(seconds=30)", value)
    if not least <= value <= LONGEST:
        shortest = "nothing" if not least else f"{least.total_seconds():g} s"
        raise InvalidOptionError(option, f"be from {shortest} to {LONGEST.days} days", value)
    return value


def span_of(option: str, seconds: object) -> timedelta:
    """The span of so many seconds, which may be given as text; at most a year."""
    try:
        number = float("no number" if isinstance(seconds, bool) else seconds)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= LONGEST.total_seconds():
        must = f"be a number of seconds, from 0 to {LONGEST.total_seconds():.0f} ({LONGEST.days} days)"
        raise InvalidOptionError(option, must, seconds)
    return timedelta(seconds=number)


def moment_of(option: str, value: object) -> datetime:
    """The moment, if it is one with a time zone; it may be given as the text of one (ISO 8601)."""
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise InvalidOptionError(option, "be a moment, such as 2026-11-24T09:00:00Z", value) from None
    if found.tzinfo is None:
        raise InvalidOptionError(option, "name a time zone, such as in 2026-11-24T09:00:00+00:00", str(value))
    return found


def needs_of(option: str, value: object) -> tuple[UUID, ...]:
    """The ids of runs, if they are some."""
    try:
        found = [one if isinstance(one, UUID) else UUID(one) for one in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError, AttributeError):
        raise InvalidOptionError(option, "be ids of runs, such as After.of(task) takes from tasks", value) from None
    if not 1 <= len(found) <= MOST_NEEDS:
        raise InvalidOptionError(option, f"be 1 to {MOST_NEEDS:,} runs", len(found))
    return tuple(found)


def check_url(option: str, value: object) -> None:
    """Refuse what nobody could call back. The value is not told: it may hold a password."""
    if not isinstance(value, str) or len(value) > MOST_URL or not re.fullmatch(CALLBACK_URL, value):
        must = (
            f"begin with http:// or https://, name a host, hold no password, and have at most {MOST_URL:,} characters"
        )
        raise InvalidOptionError(option, must)
