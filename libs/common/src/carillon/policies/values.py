"""What policies keep of values: JSON, of a bounded size, and a fingerprint of arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from carillon.errors import ConfigurationError, InvalidArgumentsError, PermanentError
from carillon.jsonb import holds_nul, loses_numbers

#: What is larger belongs in storage, and its key is kept.
MOST_BYTES = 64 * 1024


def kept_json(whose: str, value: object) -> str:
    """A value as JSON text; raises `PermanentError`, with what to do instead, where that cannot be kept."""
    try:
        encoded = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        message = f"what {whose} gave cannot be kept ({error}); return JSON types or pydantic models"
        raise PermanentError(message) from error
    if len(encoded) > MOST_BYTES:
        size = f"{len(encoded):,} bytes, the most is {MOST_BYTES:,}"
        message = f"what {whose} gave has {size}; put it into storage, and return its key"
        raise PermanentError(message)
    if loses_numbers(value, encoded) or holds_nul(encoded):
        message = f"what {whose} gave holds NaN, an infinite number or the character NUL, which JSON has not"
        raise PermanentError(message)
    return encoded.decode()


def fingerprint(whose: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What tells arguments from others, in whatever order they are named; raises `InvalidArgumentsError`."""
    try:
        spelled = orjson.dumps([args, kwargs], default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)
    except TypeError as error:
        message = (
            f"the arguments of {whose} cannot be compared ({error}); give it ids and values, and the rest as the "
            "object of a method, as in `client.charge`"
        )
        raise InvalidArgumentsError(message) from error
    return sha256(spelled).hexdigest()


def check_type(whose: str, kind: object) -> None:
    """Refuse what no kept value can be read as; raises `ConfigurationError`."""
    try:
        _reader(kind)
    except (TypeError, PydanticUserError) as error:
        message = f"{whose} has returns={kind!r}, which cannot be read from JSON; give JSON types, or a pydantic model"
        raise ConfigurationError(message) from error


def read(whose: str, kind: object, kept: str) -> Any:
    """A value of that type, of what was kept; raises `PermanentError` where that is none."""
    try:
        return _reader(kind).validate_json(kept)
    except ValidationError as error:
        message = f"what {whose} gave is no {kind}: {error.errors()[0]['msg']}; mend `returns`, or the function"
        raise PermanentError(message) from None


@lru_cache(maxsize=256)
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
