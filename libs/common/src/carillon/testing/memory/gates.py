"""Under which key a run waits for limits, found in its arguments as by the statement that accepts it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import md5
from typing import Any

from carillon.ledger.statements.accept import MOST_GATE_BYTES

#: Of a key that is too long, so many characters are kept.
KEPT = 40
_POSITION = re.compile(r"-?\d+")


def gate_for(limits: Mapping[str, Any] | None, args: Any) -> str | None:
    """The key of a run with these arguments; empty where they have none, and None where nothing limits the run."""
    if limits is None:
        return None
    found = args if "key" in limits else None
    for part in limits.get("key", "").split("."):
        found = _inside(found, part)
    key = _spelled(found)
    if len(key.encode()) <= MOST_GATE_BYTES:
        return key
    return f"{key[:KEPT]}#{md5(key.encode(), usedforsecurity=False).hexdigest()}"


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and _POSITION.fullmatch(part) and -len(value) <= int(part) < len(value):
        return value[int(part)]
    return None


def _spelled(value: Any) -> str:
    """A value as text. What holds others is spelled in one way, so that equal ones are one key."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
