"""What runs can be searched by, as the query of a search and the filters of a selection write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carillon.bounds import MOST_LABEL
from carillon.errors import InvalidArgumentsError
from carillon.ledger.search import Search
from carillon.ledger.tables import STATES
from carillon.ledger.typed import WORDS, typed_search
from gateway.errors import Fault, invalid

#: A value that is compared as a whole.
WORD = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[^\x00-\x1f\x7f]*$"}
_NAME = r"[^\x00-\x1f\x7f:.]{1,100}"


def _moment(description: str) -> dict[str, Any]:
    return {"description": description, "type": "string", "format": "date-time"}


def _id(description: str) -> dict[str, Any]:
    return {"description": description, "type": "string", "format": "uuid"}


def _seconds(description: str) -> dict[str, Any]:
    return {"description": description, "type": "number", "minimum": 0, "maximum": 10**9}


FILTERS: dict[str, Any] = {
    "state": {
        "description": "One of these states; may be repeated.",
        "type": "array",
        "maxItems": len(STATES),
        "items": {"enum": list(STATES)},
    },
    "task": {**WORD, "description": "The whole name of a task."},
    "domain": {**WORD, "description": "The name of a domain."},
    "label": {
        "description": "A label as `name:value`; may be repeated.",
        "type": "array",
        "maxItems": 20,
        "items": {**WORD, "maxLength": MOST_LABEL + 64, "pattern": r"^[a-z][a-z0-9_.-]*:[^\x00-\x1f\x7f]*$"},
    },
    "arg": {
        "description": "An argument as `path:value`, such as `order:17` or `customer.id:17`; may be repeated. `17` is "
        'the number and the text, `"17"` only the text.',
        "type": "array",
        "maxItems": 10,
        "items": {**WORD, "pattern": rf"^{_NAME}(\.{_NAME}){{0,9}}:[^\x00-\x1f\x7f]*$"},
    },
    "since": _moment("Accepted at or after this moment."),
    "until": _moment("Accepted before this moment."),
    "finished_since": _moment("Ended at or after this moment."),
    "finished_until": _moment("Ended before this moment."),
    "longer": _seconds(
        "The last attempt took at least so many seconds. With `state=running` alone: has been at it for so long."
    ),
    "shorter": _seconds("The last attempt took less than so many seconds."),
    "worker": _id("The worker that had the last attempt."),
    "fingerprint": {**WORD, "description": "Failed with an error of this kind (`error.fingerprint` of a run)."},
    "parent": _id("Submitted by this run."),
    "unique_key": {**WORD, "maxLength": 255, "description": "Submitted with this unique key."},
    "replay_of": _id("Repeats this run."),
    "priority": {"description": "Submitted with this priority.", "enum": ["low", "normal", "high", "urgent"]},
}


#: Which page of a long list; its query has them beside the filters.
PAGED: dict[str, Any] = {
    "limit": {
        "description": "How many a page has at most.",
        "type": "integer",
        "minimum": 1,
        "maximum": 200,
        "default": 50,
    },
    "cursor": {
        "description": "`next_cursor` of the page before, with the same filters.",
        "type": "string",
        "minLength": 1,
        "maxLength": 100,
    },
}


def search_of(filters: Mapping[str, Any]) -> Search:
    """The search that filters mean which fit `FILTERS`; raises `ProblemError`."""
    try:
        return typed_search(filters)
    except InvalidArgumentsError as error:
        word, _, rest = str(error).partition(" ")
        raise invalid(Fault(word, rest) if word in WORDS else Fault("query", str(error))) from None
