"""How a run is to run: the options of a submit, as labels on their way through Taskiq, and back.

Taskiq turns every label that is no number or text into the text that Python prints of it, so what has a shape (`unique`
and `after`) travels as JSON: the same JSON that the HTTP surface takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar

import orjson

from carillon import clock
from carillon.bounds import check_key, check_own_labels, check_span, check_url, moment_of, span_of
from carillon.errors import InvalidArgumentsError, InvalidOptionError
from carillon.ledger.records import After, Priority, Unique
from carillon.times import NAMES as TIMES
from carillon.times import times_in

Shape = TypeVar("Shape")

#: Labels that say how to run, and are not kept as labels.
NAMES = TIMES | {"priority", "idempotency_key", "unique", "after", "callback_url"}
#: By the label that carries it, the option in which a moment or a span was given.
_GIVEN_AS = {"expires_in": "expires", "expires_at": "expires", "deadline_at": "deadline"}


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
    #: The same key, task and arguments are one run, however often they are submitted; so must be `after` (but for its
    #: delay), `callback_url` and the key of `unique`, and else there is a conflict. Times, priority and labels may
    #: differ: those of the first submit hold.
    idempotency_key: str
    unique: Unique
    after: After
    #: Told of the end with a signed webhook.
    callback_url: str
    #: Words of one's own by which runs can be searched.
    labels: Mapping[str, str]


def labels_of(options: SubmitOptions) -> dict[str, str | float]:
    """Options as the labels that `kiq` carries; what is None is not said.

    Raises `InvalidOptionError`, which is an `InvalidArgumentsError`, for what the submit would be refused for, and for
    an option that there is not.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - SubmitOptions.__annotations__.keys()):
        message = f"there is no option {unknown[0]!r}; there are {', '.join(SubmitOptions.__annotations__)}"
        raise InvalidArgumentsError(message)
    own = given.pop("labels", {})
    if taken := sorted(own.keys() & NAMES):
        message = f"{', '.join(taken)} cannot be among the labels; give it as an option"
        raise InvalidArgumentsError(message)
    check_own_labels(own)
    labels: dict[str, str | float] = dict(own)
    for name, value in given.items():
        labels |= _AS_LABELS[name](value)
    try:
        check_labels(labels)
    except InvalidOptionError as error:
        raise InvalidOptionError(_GIVEN_AS.get(error.option, error.option), error.must, *error.given) from None
    return labels


def own_labels(labels: Mapping[str, Any]) -> dict[str, str]:
    """The labels that are kept as such: those that are no options."""
    return {name: str(value) for name, value in labels.items() if name not in NAMES}


def check_labels(labels: Mapping[str, Any]) -> None:
    """Refuse labels that say how to run, and say what a submit would be refused for; raises `InvalidOptionError`."""
    priority_in(labels)
    times_in(labels, clock.now())
    for read in (key_in, unique_in, after_in, callback_url_in):
        read(labels)


def _span_or_moment(option: str, seconds: str, moment: str, value: object) -> dict[str, str | float]:
    if isinstance(value, datetime):
        return {moment: moment_of(option, value).isoformat()}
    if not isinstance(value, timedelta):
        raise InvalidOptionError(option, "be a timedelta, such as timedelta(hours=1), or a datetime", value)
    return {seconds: check_span(option, value).total_seconds()}


def _run_at(value: object) -> dict[str, str | float]:
    if not isinstance(value, datetime):
        raise InvalidOptionError("run_at", "be a datetime with a time zone", value)
    return {"run_at": moment_of("run_at", value).isoformat()}


def _shape(option: str, kind: type[Unique | After], value: object) -> dict[str, str | float]:
    if not isinstance(value, kind):
        raise InvalidOptionError(option, f"be {kind.__name__}(...)", value)
    return {option: orjson.dumps(shown(value)).decode()}


def _key(value: object) -> dict[str, str | float]:
    check_key("idempotency_key", value)
    return {"idempotency_key": str(value)}


#: How each option travels.
_AS_LABELS: Mapping[str, Callable[[Any], Mapping[str, str | float]]] = {
    "priority": lambda value: {"priority": value},
    "delay": lambda value: {"delay": check_span("delay", value).total_seconds()},
    "run_at": _run_at,
    "expires": lambda value: _span_or_moment("expires", "expires_in", "expires_at", value),
    "deadline": lambda value: _span_or_moment("deadline", "deadline", "deadline_at", value),
    "idempotency_key": _key,
    "unique": lambda value: _shape("unique", Unique, value),
    "after": lambda value: _shape("after", After, value),
    "callback_url": lambda value: {"callback_url": value},
}


def shown(shape: Unique | After) -> dict[str, Any]:
    """The JSON that says the same, as `unique_of` and `after_of` read it."""
    whole: dict[str, Any] = orjson.loads(orjson.dumps(shape, default=_plain))
    return {name: value for name, value in whole.items() if value is not None}


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def priority_in(labels: Mapping[str, Any]) -> int:
    """The priority that the labels name, by word or number."""
    if "priority" not in labels:
        return int(Priority.NORMAL)
    value = labels["priority"]
    try:
        return int(Priority[value.upper()] if isinstance(value, str) and value.islower() else Priority(int(str(value))))
    except (KeyError, ValueError):
        words = ", ".join(priority.name.lower() for priority in Priority)
        raise InvalidOptionError("priority", f"be one of {words}", value) from None


def key_in(labels: Mapping[str, Any]) -> str | None:
    """The idempotency key, if there is one."""
    if (key := labels.get("idempotency_key")) is None:
        return None
    check_key("idempotency_key", str(key))
    return str(key)


def deadline_of(named: datetime | None, inherited: datetime | None) -> datetime | None:
    """The earlier of what a submit says and of what the run that submits has left."""
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
    if url is not None:
        check_url("callback_url", url)
    return url


def unique_of(given: Mapping[str, Any]) -> Unique:
    """What JSON says: key, until, window (seconds), on_conflict; raises `InvalidOptionError`, or `TypeError`."""
    window = given.get("window")
    return Unique(**{**given, "window": None if window is None else span_of("unique.window", window)})


def after_of(given: Mapping[str, Any]) -> After:
    """What JSON says: runs, when, otherwise, delay (seconds); raises `InvalidOptionError`, or `TypeError`."""
    return After(**{**given, "runs": given.get("runs", ()), "delay": span_of("after.delay", given.get("delay", 0))})


def _shaped(labels: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], Shape]) -> Shape | None:
    if name not in labels:
        return None
    try:
        return read(orjson.loads(labels[name]))
    except InvalidOptionError:
        raise
    except (TypeError, ValueError, AttributeError):
        message = f"the label {name} is not what `options({name}=...)` makes; use that in place of with_labels"
        raise InvalidArgumentsError(message) from None
