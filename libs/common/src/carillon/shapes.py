"""Checking values against JSON Schemas, with faults that say what to do and never repeat the value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import orjson
from jsonschema import Draft202012Validator, FormatChecker, ValidationError, validators
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable

from carillon.errors import Fault
from carillon.ledger.typed import in_reach

#: More faults than this help nobody.
MOST_FAULTS = 20
_MOST_DETAIL = 200
#: RFC 3339, 5.6, with an offset: a moment without one means something else in each place.
MOMENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$")

_formats = FormatChecker(["uuid", "date"])


def shown(name: str) -> str:
    """A name from outside, safe to print and short."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in name[:60])
    return printable if len(name) <= len(printable) else f"{printable}..."


def moment(text: str) -> datetime:
    """The moment that an RFC 3339 timestamp names, in UTC; raises `ValueError`, also where it is out of reach."""
    if not MOMENT.match(text) or text != text.strip():
        message = "is not an RFC 3339 timestamp with an offset, such as 2026-11-24T09:00:00Z"
        raise ValueError(message)
    return in_reach(datetime.fromisoformat(text))


def _is_moment(value: object) -> bool:
    if isinstance(value, str):
        moment(value)
    return True


_formats.checks("date-time", raises=ValueError)(_is_moment)


def _pattern(_: object, pattern: str, value: object, __: object) -> Iterator[ValidationError]:
    # JSON Schema speaks ECMA 262, where `$` is the end; Python's also matches before a last line break.
    if isinstance(value, str) and not re.search(re.sub(r"(?<!\\)\$$", r"\\Z", pattern), value):
        yield ValidationError("does not match")


def _is_integer(_: object, value: object) -> bool:
    # JSON Schema takes 3.0 for an integer; the worker, which checks once more, does not.
    return isinstance(value, int) and not isinstance(value, bool)


_strict_types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
_Checker = validators.extend(Draft202012Validator, {"pattern": _pattern}, type_checker=_strict_types)


@lru_cache(maxsize=512)
def _checker(schema: bytes) -> Validator:
    return _Checker(orjson.loads(schema), format_checker=_formats)


def faults_of(value: object, schema: Mapping[str, Any], pointer: str = "") -> list[Fault]:
    """Everything that keeps a value from fitting a schema, each with a JSON pointer below `pointer`."""
    return faults_by(schema)(value, pointer)


def faults_by(schema: Mapping[str, Any]) -> Callable[[object, str], list[Fault]]:
    """The same for many values: the schema is read once."""
    return partial(_faults, _checker(orjson.dumps(schema)))


def _faults(checker: Validator, value: object, pointer: str) -> list[Fault]:
    try:
        found = checker.iter_errors(value)
        return [Fault(_pointer(pointer, error), _detail(error)) for error in islice(found, MOST_FAULTS)]
    except Unresolvable:
        return [Fault(pointer or "body", "cannot be checked: the registered schema is broken")]


def _pointer(base: str, error: ValidationError) -> str:
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in error.absolute_path]
    return "/".join((base, *(shown(step) for step in steps))) or "body"


def _detail(error: ValidationError) -> str:
    rule, limit = str(error.validator), error.validator_value
    words = _SENTENCES.get(rule, lambda _, __: f"breaks the schema's rule {rule} {limit}")(error, limit)
    return words if len(words) <= _MOST_DETAIL else f"{words[: _MOST_DETAIL - 3]}..."


def _extra(error: ValidationError, _: object) -> str:
    allowed = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    given = error.instance if isinstance(error.instance, Mapping) else {}
    extra = [shown(str(name)) for name in given if name not in allowed][:5]
    known = ", ".join(allowed) or "none"
    return f"has fields that are not taken: {', '.join(extra)}; those that are: {known}"


def _missing(error: ValidationError, _: object) -> str:
    # The library gives one error for each missing name, and the name first in its message.
    return f"lacks the field {error.message.split(' is a required')[0]}"


def _types(_: object, limit: object) -> str:
    return f"must be {' or '.join(map(str, limit)) if isinstance(limit, list) else limit}"


def _no_match(error: ValidationError, limit: object) -> str:
    must = error.schema.get("x-must-be") if isinstance(error.schema, Mapping) else None
    return f"does not match the pattern {limit}" if must is None else f"must be {must}"


def _says(sentence: str) -> Callable[[ValidationError, Any], str]:
    return lambda _, limit: sentence.format(limit)


_SENTENCES: dict[str, Callable[[ValidationError, Any], str]] = {
    "type": _types,
    "required": _missing,
    "additionalProperties": _extra,
    "enum": lambda _, limit: f"must be one of {', '.join(map(str, limit))}",
    "const": _says("must be {}"),
    "pattern": _no_match,
    "format": _says("is not a valid {}"),
    "minimum": _says("must be at least {}"),
    "maximum": _says("must be at most {}"),
    "exclusiveMinimum": _says("must be more than {}"),
    "exclusiveMaximum": _says("must be less than {}"),
    "minLength": _says("must have at least {} characters"),
    "maxLength": _says("must have at most {} characters"),
    "minItems": _says("must have at least {} items"),
    "maxItems": _says("must have at most {} items"),
    "maxProperties": _says("must have at most {} members"),
    "anyOf": _says("fits none of the allowed shapes"),
    "oneOf": _says("fits none, or more than one, of the allowed shapes"),
}
