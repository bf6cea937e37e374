"""What PostgreSQL's jsonb can keep, and JSON can say besides."""

from __future__ import annotations

import re

from pydantic_core import to_json, to_jsonable_python

#: The escape of NUL. An even number of backslashes before it is text that only looks like one.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def holds_nul(encoded: bytes) -> bool:
    """Whether a string in this JSON text holds the character NUL, which PostgreSQL refuses."""
    return b"\\u0000" in encoded and _NUL.search(encoded) is not None


def loses_numbers(value: object, encoded: bytes) -> bool:
    """Whether a float of this value is no number, or infinite: its JSON text has null in place of each such."""
    if value is None or b"null" not in encoded:
        return False
    # A model decides for itself how its floats are written, so it is made plain first; there they are still floats.
    plain = to_jsonable_python(value, serialize_unknown=True)
    # Where nothing was lost, these are the same.
    return to_json(plain, inf_nan_mode="constants") != to_json(plain, inf_nan_mode="null")
