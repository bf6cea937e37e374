"""What PostgreSQL's jsonb can keep, and JSON can say besides."""

from __future__ import annotations

import re

#: The escape of NUL. An even number of backslashes before it is text that only looks like one.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def holds_nul(encoded: bytes) -> bool:
    """Whether a string in this JSON text holds the character NUL, which PostgreSQL refuses."""
    return b"\\u0000" in encoded and _NUL.search(encoded) is not None
