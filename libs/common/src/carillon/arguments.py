"""Arguments as the ledger keeps them."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from carillon.errors import InvalidArgumentsError
from carillon.jsonb import holds_nul, loses_numbers

#: Larger arguments belong in storage, with their key as the argument.
MOST_ARGS_BYTES = 256 * 1024


def json_args(arguments: dict[str, Any]) -> str:
    """Arguments as JSON text; raises `InvalidArgumentsError` when they cannot be kept."""
    try:
        encoded = orjson.dumps(arguments, default=to_jsonable_python)
    except TypeError as error:
        message = f"the arguments are not JSON: {error}"
        raise InvalidArgumentsError(message) from error
    if len(encoded) > MOST_ARGS_BYTES:
        message = f"the arguments have {len(encoded)} bytes, the most is {MOST_ARGS_BYTES}; pass a storage key instead"
        raise InvalidArgumentsError(message)
    if loses_numbers(arguments, encoded):
        message = "the arguments hold a float that is NaN or infinite, which JSON has not; pass None, or a text"
        raise InvalidArgumentsError(message)
    if holds_nul(encoded):
        message = "the arguments hold the character NUL, which PostgreSQL cannot keep"
        raise InvalidArgumentsError(message)
    return encoded.decode()
