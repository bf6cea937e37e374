"""Reading request bodies: bounded in size and time, and strictly JSON.

One JSON text has one meaning here: no duplicate names, no NaN, no number that another reader would round (I-JSON,
RFC 7493), no lone surrogate, no NUL, which PostgreSQL cannot keep.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

from carillon.shapes import shown
from gateway.errors import INVALID, MALFORMED, MEDIA_TYPE, TOO_LARGE, TOO_SLOW, Fault, ProblemError, invalid

#: Deeper structures are refused before they are parsed.
MOST_DEPTH = 64
#: Integers beyond this are rounded by readers that keep numbers as doubles.
MOST_INTEGER = 2**53 - 1
_MOST_DIGITS = 17
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

Receive = Callable[[], Awaitable[Any]]


class _UnfitNumberError(ValueError):
    """A number that is JSON, or nearly, and that no reader would keep as it is written."""


class _DuplicateNameError(ValueError):
    """An object that names a member twice."""


def media_type_of(headers: Sequence[tuple[bytes, bytes]], allowed: Sequence[str]) -> str:
    """The body's media type, without parameters; raises `ProblemError` unless it is one of `allowed`."""
    named: dict[bytes, list[str]] = {}
    for name, value in headers:
        named.setdefault(name.lower(), []).append(value.decode("latin-1"))
    encodings = named.get(b"content-encoding", [])
    if any(encoding.strip().lower() not in {"", "identity"} for encoding in encodings):
        message = "compressed bodies are not taken; send the body as it is, without Content-Encoding"
        raise ProblemError(MEDIA_TYPE, message)
    types = named.get(b"content-type", [])
    media_type, _, parameters = types[0].partition(";") if len(types) == 1 else ("", "", "")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    bare = media_type.strip().lower()
    if bare not in allowed or (charset and charset.group(1).lower() not in {"utf-8", "utf8"}):
        message = f"send exactly one Content-Type, in UTF-8: {' or '.join(allowed)}"
        raise ProblemError(MEDIA_TYPE, message, headers={"Accept": ", ".join(allowed)})
    return bare


async def read_body(receive: Receive, headers: Mapping[str, str], *, most: int, seconds: float) -> bytes:
    """The whole body; raises `ProblemError` when it is larger than `most` or takes longer than `seconds`."""
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    text = "the connection closed before the body was complete"
                    raise ProblemError(MALFORMED, text)
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > most:
                    raise _too_large(most)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        text = f"the body was not complete after {seconds:g} seconds; send it again"
        raise ProblemError(TOO_SLOW, text, headers={"Connection": "close"}) from None


def _too_large(most: int) -> ProblemError:
    text = f"the body may have {most} bytes; keep larger data in storage and send its key"
    return ProblemError(TOO_LARGE, text, headers={"Connection": "close"})


def parse_json(body: bytes) -> Any:
    """The value of a JSON text; raises `ProblemError`: 400 for what is not JSON, 422 for what cannot be kept."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        message = "the body is not UTF-8"
        raise ProblemError(MALFORMED, message) from None
    if text.startswith("\ufeff"):
        message = "the body begins with a byte order mark; send UTF-8 without one"
        raise ProblemError(MALFORMED, message)
    _refuse_depth(body)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
        )
    except _UnfitNumberError as error:
        raise ProblemError(INVALID, str(error), faults=[Fault("body", str(error))]) from None
    except _DuplicateNameError as error:
        raise ProblemError(MALFORMED, str(error)) from None
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        message = f"the body is not JSON{where}" if body.strip() else "the body is empty; send a JSON object"
        raise ProblemError(MALFORMED, message) from None
    if b"\\u" in body:
        _refuse_characters(value, "")
    return value


def _refuse_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MOST_DEPTH:
            message = f"the body is nested deeper than {MOST_DEPTH} levels"
            raise ProblemError(MALFORMED, message)


def _refuse_characters(value: object, pointer: str) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise invalid(Fault(pointer or "body", "holds the character NUL, which cannot be kept"))
        if any("\ud800" <= character <= "\udfff" for character in value):
            message = f"{pointer or 'the body'} holds half a character (a lone surrogate)"
            raise ProblemError(MALFORMED, message)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_characters(item, f"{pointer}/{index}")
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_characters(name, pointer)
            _refuse_characters(item, f"{pointer}/{shown(name)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        message = f"the name {shown(twice)!a} appears twice in one object"
        raise _DuplicateNameError(message)
    return found


def _constant(literal: str) -> NoReturn:
    message = f"{literal} is not a number that JSON has"
    raise _UnfitNumberError(message)


def _integer(literal: str) -> int:
    if len(literal) > _MOST_DIGITS or abs(int(literal)) > MOST_INTEGER:
        message = "an integer beyond 2^53 - 1 would be rounded by some readers; send it as a string"
        raise _UnfitNumberError(message)
    return int(literal)


def _float(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        message = "a number is too large to be kept"
        raise _UnfitNumberError(message)
    return number
