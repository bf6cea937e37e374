"""When a run may start, until when it has to, and by when it has to be ended: as options say it, in bounds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from carillon.bounds import LATE, LONGEST, moment_of, span_of
from carillon.errors import InvalidOptionError

#: Each moment by its option in seconds from now, and by the one that is the moment itself.
_RUN_AT = ("delay", "run_at")
_EXPIRES = ("expires_in", "expires_at")
_DEADLINE = ("deadline", "deadline_at")
#: The options that this module reads.
NAMES = frozenset((*_RUN_AT, *_EXPIRES, *_DEADLINE))


class Times(NamedTuple):
    """The moments of a run; None where nothing is said."""

    run_at: datetime | None = None
    expires_at: datetime | None = None
    deadline_at: datetime | None = None


_NONE = Times()


def times_in(options: Mapping[str, Any], now: datetime) -> Times:
    """The moments that options name, in UTC; raises `InvalidOptionError` for two words about one, or out of bounds.

    A run may start at most a year ahead, and neither expire nor have to be ended before it may start.
    """
    if NAMES.isdisjoint(options):
        return _NONE
    run_at = _moment(options, _RUN_AT, now, (now - LATE, now + LONGEST))
    later = (run_at or now, now + 2 * LONGEST)
    return Times(
        # What may start now goes to a worker at once.
        run_at=None if run_at == now else run_at,
        expires_at=_moment(options, _EXPIRES, now, later),
        deadline_at=_moment(options, _DEADLINE, now, later),
    )


def _moment(
    options: Mapping[str, Any], names: tuple[str, str], now: datetime, span: tuple[datetime, datetime]
) -> datetime | None:
    seconds, at = names
    if options.get(seconds) is not None:
        if options.get(at) is not None:
            raise InvalidOptionError(seconds, f"not be given together with {at}")
        return _within(seconds, now + span_of(seconds, options[seconds]), *span)
    return None if options.get(at) is None else _within(at, moment_of(at, options[at]), *span)


def _within(option: str, moment: datetime, earliest: datetime, latest: datetime) -> datetime:
    if not earliest <= moment <= latest:
        raise InvalidOptionError(option, f"lie between {_told(earliest)} and {_told(latest)}", _told(moment))
    return moment.astimezone(UTC)


def _told(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
