"""What was typed, as what it means; raises `MistypedError` where it means nothing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from carillon.cli.exits import MistypedError


def json_object(text: str, where: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        message = f'{where} is no JSON ({error}); write an object such as \'{{"name": "value"}}\'.'
        raise MistypedError(message) from error
    if not isinstance(found, dict):
        message = f'{where} has to be a JSON object, such as \'{{"name": "value"}}\'.'
        raise MistypedError(message)
    return found


def run_id(text: str) -> UUID:
    """The id of a run."""
    try:
        return UUID(text)
    except ValueError as error:
        message = "This is no id of a run; ids look like 0198f0c1-0000-7000-8000-000000000000."
        raise MistypedError(message) from error
