"""How a run is to run: the options of a submit, as labels on their way through Taskiq, and back.

Taskiq turns every label that is no number or text into the text that Python prints of it, so what has a shape (`unique`
and `after`) travels as JSON: the same JSON that the HTTP surface takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar
from uuid import UUID

import orjson

from carillon import clock
from carillon.callbacks import CALLBACK_URL, MOST_URL
from carillon.errors import InvalidArgumentsError
from carillon.ledger.records import After, Priority, Unique

Shape = TypeVar("Shape")

#: Labels that say how to run, and are not kept as labels.
NAMES = frozenset(
    {
        "priority", "delay", "run_at", "expires_in", "expires_at", "deadline", "deadline_at", "idempotency_key",
        "unique", "after", "callback_url",
    }
)  # fmt: skip


class SubmitOptions(TypedDict, total=False):
    """What a submit may say beside its arguments."""

    priority: Priority | Literal["low", "normal", "high", "urgent"]
    #: Not before so much time has passed, or that moment.
    delay: timedelta
    run_at: datetime
    #: Cancelled instead of started after that.
    expires: timedelta | datetime
    #: Ended by then, whether it waits or executes; passed down to what it submits.
    deadline: timedelta | datetime
    #: The same key, task and arguments are one run, however often they are submitted.
    idempotency_key: str
    unique: Unique
    after: After
    #: Told of the end with a signed webhook.
    callback_url: str
    #: Words of one's own by which runs can be searched.
    labels: Mapping[str, str]


def labels_of(options: SubmitOptions) -> dict[str, str | float]:
    """Options as the labels that `kiq` carries; raises `InvalidArgumentsError` for a label with an option's name."""
    own = options.get("labels", {})
    if taken := sorted(own.keys() & NAMES):
        message = f"{', '.join(taken)} cannot be among the labels; give it as an option"
        raise InvalidArgumentsError(message)
    given: dict[str, Any] = dict(own)
    given |= {name: value for name, value in options.items() if name in {"priority", "idempotency_key", "callback_url"}}
    if "delay" in options:
        given["delay"] = options["delay"].total_seconds()
    if "run_at" in options:
        given["run_at"] = options["run_at"].isoformat()
    if "expires" in options:
        given |= _moment_label("expires_in", "expires_at", options["expires"])
    if "deadline" in options:
        given |= _moment_label("deadline", "deadline_at", options["deadline"])
    if "unique" in options:
        given["unique"] = orjson.dumps(shown(options["unique"])).decode()
    if "after" in options:
        given["after"] = orjson.dumps(shown(options["after"])).decode()
    return {name: value for name, value in given.items() if value is not None}


def _moment_label(seconds: str, moment: str, value: timedelta | datetime) -> dict[str, str | float]:
    return {seconds: value.total_seconds()} if isinstance(value, timedelta) else {moment: value.isoformat()}


def shown(shape: Unique | After) -> dict[str, Any]:
    """The JSON that says the same, as `unique_of` and `after_of` read it."""
    whole: dict[str, Any] = orjson.loads(orjson.dumps(shape, default=_plain))
    return {name: value for name, value in whole.items() if value is not None}


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def priority_in(labels: Mapping[str, Any]) -> int:
    """The priority that the labels name, by word or number."""
    value = labels.get("priority", Priority.NORMAL)
    try:
        return int(
            Priority[value.upper()] if isinstance(value, str) and not value.isdigit() else Priority(int(str(value)))
        )
    except (KeyError, ValueError):
        message = f"the priority {value!r} is none of low, normal, high, urgent"
        raise InvalidArgumentsError(message) from None


def run_at_in(labels: Mapping[str, Any]) -> datetime | None:
    """The moment before which the run does not start."""
    return _moment_in(labels, "delay", "run_at")


def expires_at_in(labels: Mapping[str, Any]) -> datetime | None:
    """The moment after which the run is not started."""
    return _moment_in(labels, "expires_in", "expires_at")


def deadline_in(labels: Mapping[str, Any], inherited: datetime | None) -> datetime | None:
    """The earliest of what the labels say and of what the run that submits has left."""
    named = _moment_in(labels, "deadline", "deadline_at")
    return min((moment for moment in (named, inherited) if moment is not None), default=None)


def unique_in(labels: Mapping[str, Any]) -> Unique | None:
    """What the label `unique` says, if it is there."""
    return _shaped(labels, "unique", unique_of)


def after_in(labels: Mapping[str, Any]) -> After | None:
    """What the label `after` says, if it is there."""
    return _shaped(labels, "after", after_of)


def callback_url_in(labels: Mapping[str, Any]) -> str | None:
    """The callback's URL, if there is one."""
    url = labels.get("callback_url")
    if url is not None and not (len(str(url)) <= MOST_URL and re.fullmatch(CALLBACK_URL, str(url))):
        message = "a callback_url begins with http:// or https://, names a host, and holds no password"
        raise InvalidArgumentsError(message)
    return url


def unique_of(given: Mapping[str, Any]) -> Unique:
    """What JSON says: key, until, window (seconds), on_conflict; raises `TypeError` or `ValueError`."""
    window = given.get("window")
    return Unique(**{**given, "window": None if window is None else timedelta(seconds=window)})


def after_of(given: Mapping[str, Any]) -> After:
    """What JSON says: runs, when, otherwise, delay (seconds); raises `TypeError` or `ValueError`."""
    runs, delay = [UUID(run) for run in given.get("runs", ())], timedelta(seconds=given.get("delay", 0))
    return After(**{**given, "runs": runs, "delay": delay})


def _moment_in(labels: Mapping[str, Any], seconds: str, moment: str) -> datetime | None:
    if seconds in labels:
        return clock.now() + timedelta(seconds=float(labels[seconds]))
    value = labels.get(moment)
    if value is None:
        return None
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if found.tzinfo is None:
        message = f"the moment {value} names no time zone"
        raise InvalidArgumentsError(message)
    return found


def _shaped(labels: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], Shape]) -> Shape | None:
    if name not in labels:
        return None
    try:
        return read(orjson.loads(labels[name]))
    except (TypeError, ValueError, AttributeError):
        message = f"the label {name} is not what `options({name}=...)` makes; use that in place of with_labels"
        raise InvalidArgumentsError(message) from None
