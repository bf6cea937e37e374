"""How an error gets from a child process into the worker: as words, by which its class is found, and nothing executed.

The class is looked for among what the worker has imported already, from the most specific to the most general: where
the code imported a module of its own, the worker sees the next class above. `__init__` and `__new__` of a domain's own
class are not called, so of its attributes only what decides is there: `retry_after`, and the delay of a `Snooze`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson

from carillon.contracts import Event
from carillon.errors import PermanentError, Snooze
from carillon.middleware.retry import retry_after
from carillon.worker.execution import TOLD, error_json, text_of

#: Of CPython's type flags: a class that Python code made, whose `__new__` is somebody's code.
_MADE_BY_PYTHON = 1 << 9


def packed(error: BaseException) -> dict[str, Any]:
    """An error in words."""
    named = retry_after(error)
    return {
        "kinds": [name_of(kind) for kind in type(error).__mro__],
        "text": text_of(error),
        "told": error_json(error),
        "retry_after": None if named is None else named.total_seconds(),
        "delay": error.delay.total_seconds() if isinstance(error, Snooze) else None,
    }


def unpacked(words: Mapping[str, Any]) -> Exception:
    """The error that these words tell of, of the most specific class that the worker knows."""
    error = next((made for name in words["kinds"] if (made := _made(name, words["text"])) is not None), None)
    error = error or Exception(words["text"])
    attributes = vars(error)
    attributes[TOLD] = words["told"]
    for name in ("retry_after", "delay"):
        if words[name] is not None:
            attributes[name] = timedelta(seconds=words[name])
    # Shown where the error is the cause of another, whose traceback is the worker's.
    error.add_note("In its process:\n" + str(orjson.loads(words["told"]).get("traceback", words["text"])))
    return error


def said(words: Mapping[str, Any]) -> Event:
    """The event that a child says; raises `PermanentError` where the worker does not know its contract."""
    contract = _known(words["kind"])
    if not isinstance(contract, type) or not issubclass(contract, Event):
        message = f"it said {words['kind']}, which its worker does not know; import it at the top of the task's module"
        raise PermanentError(message)
    return contract.model_validate(words["data"])


def name_of(kind: type) -> str:
    """A class in words."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _known(name: str) -> object:
    module, _, path = name.partition(":")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        # Not `getattr`: a module's own `__getattr__` would be executed.
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found


def _made(name: str, text: str) -> Exception | None:
    kind = _known(name)
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return None
    native: Any = next(base for base in kind.__mro__ if not base.__flags__ & _MADE_BY_PYTHON)
    try:
        made = native.__new__(kind, text)
    except TypeError:
        # It cannot be made of its text alone, as a group of errors cannot.
        return None
    return made if isinstance(made, Exception) else None
