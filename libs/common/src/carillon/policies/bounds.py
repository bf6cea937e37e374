"""What the numbers of a policy may be."""

from __future__ import annotations

import re
from datetime import timedelta

from carillon.bounds import LONGEST
from carillon.errors import ConfigurationError

#: A name is a label of metrics, and part of the id of an event.
NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}")

#: Whoever waits in a task has its slot; what takes longer waits better in the ledger.
LONGEST_WAIT = timedelta(minutes=10)


def check_name(kind: str, name: object) -> None:
    """Refuse a name that could not be kept; raises `ConfigurationError`."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        message = (
            f"no {kind} can be named {name!r:.100}; use at most 63 small letters, digits, dots and dashes, beginning "
            "with a letter"
        )
        raise ConfigurationError(message)


def check_span(whose: str, name: str, span: object) -> None:
    """Refuse what is no span of time that can be waited for; raises `ConfigurationError`."""
    if not isinstance(span, timedelta) or not timedelta(0) < span <= LONGEST:
        message = (
            f"{whose} has {name}={span!r}; it must be a timedelta, more than nothing and at most {LONGEST.days} days"
        )
        raise ConfigurationError(message)


def check_wait(whose: str, span: object) -> None:
    """Refuse what cannot be waited for within a task; nothing is allowed. Raises `ConfigurationError`."""
    if not isinstance(span, timedelta) or not timedelta(0) <= span <= LONGEST_WAIT:
        minutes = LONGEST_WAIT // timedelta(minutes=1)
        message = (
            f"{whose} has wait={span!r}; it must be a timedelta, not less than nothing and at most {minutes} minutes"
        )
        raise ConfigurationError(message)


def check_errors(whose: str, name: str, kinds: object) -> None:
    """Refuse what are no types of errors; raises `ConfigurationError`."""
    if not isinstance(kinds, tuple) or not all(isinstance(k, type) and issubclass(k, Exception) for k in kinds):
        message = f"{whose} has {name}={kinds!r}; it must be a tuple of exception classes, such as (OSError,)"
        raise ConfigurationError(message)
