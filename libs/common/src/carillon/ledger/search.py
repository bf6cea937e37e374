"""What runs can be searched by, and the one place that turns a search into SQL.

`condition` makes a condition on `carillon.runs r`, for pages of the history as for acting on many runs at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from carillon.errors import InvalidArgumentsError
from carillon.jsonb import holds_nul
from carillon.ledger.records import TERMINAL, State
from carillon.ledger.tables import STATES

#: No path into the arguments has more names, and no search names more values of one argument.
MOST_DEPTH = 10
MOST_VALUES = 20


class Cursor(NamedTuple):
    """Where the next page begins: after this row."""

    created_at: datetime
    id: UUID


class Condition(NamedTuple):
    """A condition on `carillon.runs r`, with its parameters as asyncpg numbers them."""

    sql: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which runs; every part that is set must hold. Moments have a time zone."""

    states: Sequence[str] = ()
    domain: str | None = None
    task: str | None = None
    #: Accepted at or after, and before, these moments.
    since: datetime | None = None
    until: datetime | None = None
    #: Ended at or after, and before, these moments; a run that has not ended fits neither.
    finished_since: datetime | None = None
    finished_until: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: By path (`order`, or `customer.id`), the values of which the argument has one. An argument that is an object or a
    #: list has a value that it contains.
    args: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    #: How long the last attempt executed: at least, and less than. Of runs that ended; a search for state `running`
    #: alone takes how long they have been at it.
    longer: timedelta | None = None
    shorter: timedelta | None = None
    #: The worker that runs it, or had its last attempt.
    worker: UUID | None = None
    #: Failed with an error that has this fingerprint.
    fingerprint: str | None = None
    parent: UUID | None = None
    unique_key: str | None = None
    replay_of: UUID | None = None
    priority: int | None = None
    #: Newest first, after this row.
    after: Cursor | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        """Refuse what would find nothing, or what PostgreSQL would refuse."""
        if not isinstance(self.limit, int) or self.limit < 0:
            message = f"limit is {self.limit!r}; it is a whole number from 0 on"
            raise InvalidArgumentsError(message)
        for state in self.states:
            if state not in STATES:
                message = f"there is no state {state!r}; there are {', '.join(STATES)}"
                raise InvalidArgumentsError(message)
        _json(dict(self.labels))
        for path, values in self.args.items():
            _json(list(values))
            if not 1 <= len(path.split(".")) <= MOST_DEPTH or not all(path.split(".")):
                message = f"{path!r} is no path into the arguments; write one like `order` or `customer.id`"
                raise InvalidArgumentsError(message)
            if not 1 <= len(values) <= MOST_VALUES:
                message = f"the argument {path} is compared with 1 to {MOST_VALUES} values, not with {len(values)}"
                raise InvalidArgumentsError(message)
        for first, last in (
            (self.since, self.until), (self.finished_since, self.finished_until), (self.longer, self.shorter),
        ):  # fmt: skip
            if first is not None and last is not None and first >= last:  # type: ignore[operator]
                message = f"nothing is at least {first} and less than {last}; swap them"
                raise InvalidArgumentsError(message)


def condition(search: Search, *, first: int = 1) -> Condition:
    """The search as a condition whose parameters are numbered from `first` on. Raises `InvalidArgumentsError`.

    Its page (`after`, `limit`) is no part of that.
    """
    made = _Parts(first)
    _states(search, made)
    made.equal("domain", search.domain)
    made.equal("task", search.task)
    _moments(search, made)
    if search.labels:
        # An index leaves out the runs without labels; PostgreSQL does not see by itself that they cannot be meant.
        made.add("r.labels <> '{}'::jsonb and r.labels @> %s::text::jsonb", _json(dict(search.labels)))
    for path, values in search.args.items():
        either = [_json(_nested(path, value)) for value in values]
        made.add(f"({' or '.join(['r.args @> %s::text::jsonb'] * len(either))})", *either)
    _duration(search, made)
    made.equal("worker_id", search.worker)
    if search.fingerprint is not None:
        made.add("r.error->>'fingerprint' = %s and r.state = 'failed'", search.fingerprint)
    made.equal("parent_id", search.parent)
    made.equal("unique_key", search.unique_key)
    made.equal("replay_of", search.replay_of)
    made.equal("priority", search.priority)
    return made.condition()


class _Parts:
    """_Parts of a condition that must all hold; numbers their parameters."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._parts: list[str] = []
        self._values: list[object] = []

    def add(self, part: str, *values: object) -> None:
        """A part with `%s` for each value."""
        first = self._first + len(self._values)
        self._parts.append(part % tuple(f"${first + n}" for n in range(len(values))))
        self._values += values

    def equal(self, column: str, value: object) -> None:
        """That a column has a value, if there is one."""
        if value is not None:
            self.add(f"r.{column} = %s", value)

    def condition(self) -> Condition:
        """All of them."""
        return Condition(" and ".join(self._parts) or "true", tuple(self._values))


def _states(search: Search, made: _Parts) -> None:
    """The states, and what follows for the day of the end, by which PostgreSQL leaves out whole partitions."""
    if not search.states:
        return
    made.add("r.state = any(%s::text[])", list(search.states))
    if TERMINAL.issuperset(search.states):
        made.add("r.ended_on < 'infinity'")
    elif TERMINAL.isdisjoint(search.states):
        made.add("r.ended_on = 'infinity'")


def _moments(search: Search, made: _Parts) -> None:
    if search.since is not None:
        # Nothing ends before the day on which it was accepted.
        made.add("r.created_at >= %s and r.ended_on >= %s", search.since, _day(search.since))
    if search.until is not None:
        made.add("r.created_at < %s", search.until)
    if search.finished_since is not None:
        made.add("r.finished_at >= %s and r.ended_on >= %s", search.finished_since, _day(search.finished_since))
    if search.finished_until is not None:
        made.add("r.finished_at < %s and r.ended_on <= %s", search.finished_until, _day(search.finished_until))


def _duration(search: Search, made: _Parts) -> None:
    if search.longer is None and search.shorter is None:
        return
    end = "now()"
    if set(search.states) != {State.RUNNING}:
        made.add("r.ended_on < 'infinity'")
        end = "r.finished_at"
    if search.longer is not None:
        made.add(f"{end} - r.started_at >= %s", search.longer)
    if search.shorter is not None:
        made.add(f"{end} - r.started_at < %s", search.shorter)


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _nested(path: str, value: object) -> object:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def _json(value: object) -> str:
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:
        message = f"what is searched for is not JSON: {error}"
        raise InvalidArgumentsError(message) from error
    if holds_nul(encoded):
        message = "what is searched for holds the character NUL, which no run has"
        raise InvalidArgumentsError(message)
    return encoded.decode()
