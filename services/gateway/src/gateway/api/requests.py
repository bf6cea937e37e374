"""What handlers need of a request: its body, its query, its ids, and whose key it has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from litestar import Request

from carillon.ledger.audit import MOST_REASON, Actor
from carillon.shapes import faults_of, shown
from gateway.bodies import media_type_of, parse_json, read_body
from gateway.errors import MALFORMED, NOT_FOUND, Fault, ProblemError, invalid
from gateway.submissions import checked

Asked = Request[Any, Any, Any]

WHY: dict[str, Any] = {
    "description": "Why; the audit trail keeps it, beside who and from where.",
    "type": "string",
    "maxLength": MOST_REASON,
}
#: The body of what an operator does, which may also be empty.
REASON: dict[str, Any] = {"type": "object", "properties": {"reason": WHY}, "additionalProperties": False}
JSON = ("application/json",)
_MOST_PARAMETERS = 100
_NUMBER = re.compile(r"^-?[0-9]{1,10}(\.[0-9]{1,9})?\Z")
_UUID_LENGTH = 36


class Bodies:
    """Reads bodies within the limits of this gateway."""

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds

    async def bytes(self, request: Asked, allowed: Sequence[str] = JSON) -> bytes:
        """The body, if it is of an allowed type."""
        media_type_of(list(request.scope["headers"]), allowed)
        return await read_body(request.receive, request.headers, most=self._most, seconds=self._seconds)

    async def json(self, request: Asked) -> Any:
        """The body as a JSON value."""
        return parse_json(await self.bytes(request))

    async def wishes(self, request: Asked, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a request that may also have none; raises `ProblemError` when it does not fit the schema."""
        body = await read_body(request.receive, request.headers, most=self._most, seconds=self._seconds)
        if not body:
            return {}
        media_type_of(list(request.scope["headers"]), JSON)
        return checked(parse_json(body), schema)

    async def reason(self, request: Asked) -> str | None:
        """Why an operator does something, if the request says so; raises `ProblemError`."""
        return (await self.wishes(request, REASON)).get("reason")


def actor_of(request: Asked) -> str:
    """The name of the key that the request has."""
    actor: str = request.scope["state"]["actor"]
    return actor


def operator_of(request: Asked) -> Actor:
    """Who acts with this request: the name of its key, and the address it came from.

    Behind a proxy on this machine that address is what the proxy names (X-Forwarded-For), so it is cut and cleaned.
    """
    address = request.client.host if request.client else "an unknown address"
    return Actor(actor_of(request), f"gateway, asked from {shown(address)}")


def run_id(text: str) -> UUID:
    """The id of a run; anything else names no run."""
    try:
        found = UUID(text) if len(text) == _UUID_LENGTH else None
    except ValueError:
        found = None
    if found is None or str(found) != text.lower():
        message = "no run has this id; ids look like 0198f0c1-0000-7000-8000-000000000000"
        raise ProblemError(NOT_FOUND, message)
    return found


def query(request: Asked, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The query, checked against a schema; a parameter that is not an array may be given once.

    Raises `ProblemError`.
    """
    found: dict[str, Any] = {}
    for name, value in _pairs(request):
        kind = schema["properties"].get(name, {}).get("type")
        if kind == "array":
            found.setdefault(name, []).append(value)
        elif name in found:
            raise invalid(Fault(shown(name), "may be given once"))
        else:
            found[name] = _number(value) if kind in {"integer", "number"} else value
    faults = faults_of(found, schema)
    if faults:
        raise invalid(*(Fault(fault.pointer.lstrip("/") or "query", fault.detail) for fault in faults))
    return found


def _pairs(request: Asked) -> list[tuple[str, str]]:
    try:
        text = request.scope["query_string"].decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        message = f"the query is not UTF-8 with at most {_MOST_PARAMETERS} parameters"
        raise ProblemError(MALFORMED, message) from None


def _number(text: str) -> int | float | str:
    """The number that a text is; the text itself where it is none, for the schema to refuse."""
    if not _NUMBER.match(text):
        return text
    return float(text) if "." in text else int(text)
