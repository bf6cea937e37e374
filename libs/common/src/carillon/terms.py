"""What the owner of a task may say of it, and which of that could not be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypedDict

from carillon.bounds import LONGEST, check_own_labels
from carillon.contracts import Event
from carillon.errors import ConfigurationError, InvalidArgumentsError
from carillon.ledger.records import Unique
from carillon.limits import Limits
from carillon.options import NAMES, priority_in
from carillon.retry import Retry

#: Makes the event that a run says which ended failed, of its arguments and the error of its last attempt.
OnFailure = Callable[[Mapping[str, Any], BaseException], Event]

#: A task without a timeout of its own may run this long.
DEFAULT_TIMEOUT = timedelta(minutes=5)
#: And this long it may clean up when it is stopped.
DEFAULT_GRACE = timedelta(seconds=10)


class Terms(TypedDict, total=False):
    """What the owner of a task may say of it; `Tasks.task` tells what each means. None is not said, where it may be."""

    #: Five minutes, where nothing is said; more than nothing, and at most a year, as every span here.
    timeout: timedelta
    #: Ten seconds; nothing is allowed.
    grace: timedelta
    retry: Retry
    on_failure: OnFailure | None
    limits: Limits | None
    unique: Unique | None
    process: bool
    silent_after: timedelta | None


#: By term: whether a value may be it, and what it must be.
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "retry": (lambda value: isinstance(value, Retry), "a Retry, such as Retry(attempts=3)"),
    "on_failure": (lambda value: value is None or callable(value), "a function that makes an event"),
    "limits": (lambda value: isinstance(value, Limits | None), "Limits, such as Limits(concurrency=5)"),
    "unique": (lambda value: isinstance(value, Unique | None), "Unique, such as Unique()"),
    "process": (lambda value: isinstance(value, bool), "True or False"),
}


def check_terms(task: str, terms: Mapping[str, object], labels: Mapping[str, object]) -> None:
    """Refuse what a task could not be executed by; raises `ConfigurationError` with its name, the term and its bounds.

    Its labels hold for every run of it, however it is submitted. A priority may be among them, and no other option.
    """
    if unknown := sorted(terms.keys() - Terms.__annotations__.keys()):
        known = ", ".join(Terms.__annotations__)
        message = f"{task} has the term {unknown[0]!r}, which nobody knows; there are {known}"
        raise ConfigurationError(message)
    for name, (fits, wanted) in _KINDS.items():
        if name in terms and not fits(terms[name]):
            message = f"{task} has {name}={terms[name]!r}; it must be {wanted}"
            raise ConfigurationError(message)
    _check_span(task, "timeout", terms.get("timeout", DEFAULT_TIMEOUT))
    _check_span(task, "grace", terms.get("grace", DEFAULT_GRACE), nothing=True)
    if terms.get("silent_after") is not None:
        _check_span(task, "silent_after", terms["silent_after"])
    if fixed := sorted(labels.keys() & NAMES - {"priority"}):
        message = f"{task} has the label {fixed[0]!r}, which is an option; say it with each submit"
        raise ConfigurationError(message)
    try:
        check_own_labels({name: value for name, value in labels.items() if name not in NAMES})
        priority_in(labels)
    except InvalidArgumentsError as error:
        message = f"{task} has labels that no run could have: {error}"
        raise ConfigurationError(message) from None


def _check_span(task: str, name: str, span: object, *, nothing: bool = False) -> None:
    if not isinstance(span, timedelta):
        message = f"{task} has {name}={span!r}; it must be a timedelta, such as timedelta(seconds=30)"
        raise ConfigurationError(message)
    if not timedelta(0) <= span <= LONGEST or not (span or nothing):
        least = "not less than nothing" if nothing else "more than nothing"
        message = f"{task} has {name}={span}; it must be {least}, and at most {LONGEST.days} days"
        raise ConfigurationError(message)
