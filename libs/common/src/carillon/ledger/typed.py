"""A search as people write it, in an address or in a terminal: words for every filter, each with its text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from carillon.errors import InvalidArgumentsError
from carillon.ledger.records import Priority
from carillon.ledger.search import Search

#: No run, event or entry is from another time.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_MOMENTS = ("since", "until", "finished_since", "finished_until")
_IDS = ("worker", "parent", "replay_of")
_TEXTS = ("task", "domain", "fingerprint", "unique_key")
_SPANS = ("longer", "shorter")
#: Every filter, by the word that people write. `state`, `label` and `arg` may be repeated.
WORDS = ("state", "label", "arg", "priority", *_TEXTS, *_MOMENTS, *_SPANS, *_IDS)


def typed_search(words: Mapping[str, Any]) -> Search:
    """The search that these words mean; raises `InvalidArgumentsError`, which names the word that does not fit.

    `state`, `label` (`name:value`) and `arg` (`path:value`) are lists of texts, `longer` and `shorter` seconds; the
    rest are texts. A moment without an offset is one of UTC.
    """
    if unknown := sorted(set(words) - set(WORDS)):
        message = f"there is no filter {unknown[0]!r}; there are {', '.join(sorted(WORDS))}"
        raise InvalidArgumentsError(message)
    given: dict[str, Any] = {name: words[name] for name in _TEXTS if name in words}
    given |= {name: moment(name, words[name]) for name in _MOMENTS if name in words}
    given |= {name: _id(name, words[name]) for name in _IDS if name in words}
    given |= {name: _span(name, words[name]) for name in _SPANS if name in words}
    args: dict[str, tuple[object, ...]] = {}
    for path, value in _pairs("arg", words.get("arg", ())):
        if path in args:
            message = f"arg names {path} twice; an argument has one value"
            raise InvalidArgumentsError(message)
        args[path] = _values(value)
    for first, last in (("since", "until"), ("finished_since", "finished_until"), ("longer", "shorter")):
        if first in given and last in given and given[first] >= given[last]:
            message = f"{last} must be more than {first}" if first == "longer" else f"{last} must be later than {first}"
            raise InvalidArgumentsError(message)
    return Search(
        **given,
        states=tuple(words.get("state", ())),
        labels=dict(_pairs("label", words.get("label", ()))),
        args=args,
        priority=_priority(words["priority"]) if "priority" in words else None,
    )


def _values(typed: str) -> tuple[object, ...]:
    """What an argument may be: `17` is the number and the text, `"17"` only the text."""
    try:
        found = orjson.loads(typed)
    except orjson.JSONDecodeError:
        return (typed,)
    return (found,) if isinstance(found, str) else (found, typed)


def _pairs(word: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    pairs = [text.partition(":") for text in texts]
    if any(not name or not colon for name, colon, _ in pairs):
        example = "customer.id:17" if word == "arg" else "customer:17"
        message = f"{word} is a name, a colon and a value, such as {example}"
        raise InvalidArgumentsError(message)
    return [(name, value) for name, _, value in pairs]


def moment(word: str, text: str) -> datetime:
    """The moment that a text names, of UTC where it names no offset; raises `InvalidArgumentsError` with the word."""
    try:
        found = datetime.fromisoformat(text)
        return in_reach(found if found.tzinfo is not None else found.replace(tzinfo=UTC))
    except ValueError as error:
        message = f"{word} is no moment; write one like 2026-11-24 or 2026-11-24T09:00:00Z"
        raise InvalidArgumentsError(message) from error


def in_reach(given: datetime) -> datetime:
    """A moment, in UTC, if whatever is added to it or taken from it stays in the calendar; raises `ValueError`."""
    if not EARLIEST <= given < LATEST:
        message = f"lies before {EARLIEST.year} or after {LATEST.year - 1}"
        raise ValueError(message)
    return given.astimezone(UTC)


def _id(word: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        message = f"{word} is no id; ids look like 0198f0c1-0000-7000-8000-000000000000"
        raise InvalidArgumentsError(message) from error


def _span(word: str, seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:
        message = f"{word} is a number of seconds, such as 1.5"
        raise InvalidArgumentsError(message) from error


def _priority(text: str) -> int:
    try:
        return int(Priority[text.upper()])
    except KeyError as error:
        message = "priority is one of low, normal, high, urgent"
        raise InvalidArgumentsError(message) from error
