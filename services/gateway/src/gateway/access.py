"""Who may do what: reading may be open, changing anything takes a key."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.errors import KEY_REQUIRED, ProblemError
from gateway.store import Keys

READING = frozenset({"GET", "HEAD", "OPTIONS"})
#: What shows no data of the platform: pages are empty until their script has read something with a key.
_DATA = ("/api/", "/files/")
#: What is nobody's affair but theirs who have a key, also where reading is open.
CLOSED = "/api/v1/keys"
#: A longer query is refused by whatever reads it.
_MOST_PARAMETERS = 200
_KEY_PARAMETERS = frozenset(
    {"key", "api_key", "apikey", "api-key", "x-api-key", "token", "access_token", "authorization"}
)

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], Coroutine[Any, Any, None]]


def needs_key(keys: Keys, *, open_reads: bool) -> Guard:
    """A guard that lets a request through, noting whose key it has, or raises the same 401 for every reason."""

    async def guard(connection: Connection, _: BaseRouteHandler) -> None:
        reading = connection.scope.get("method") in READING
        path = connection.scope["path"]
        private = path.startswith(CLOSED if open_reads else _DATA)
        _refuse_in_address(connection)
        if reading and not private:
            return
        secret = _shown(connection)
        owner = await keys.owner(secret or "carillon_none")
        if owner is None:
            raise _unknown()
        connection.scope["state"]["actor"] = owner

    return guard


def _shown(connection: Connection) -> str | None:
    """The one key that the headers show."""
    found = []
    for name, value in connection.scope["headers"]:
        text = value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.append(text)
        elif name == b"authorization":
            scheme, _, rest = text.partition(" ")
            found.append(rest.strip() if scheme.lower() == "bearer" else "")
    return found[0] if len(found) == 1 else None


def _refuse_in_address(connection: Connection) -> None:
    query = connection.scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query, keep_blank_values=True) if query.count("&") < _MOST_PARAMETERS else []
    if any(name.lower() in _KEY_PARAMETERS or value.startswith("carillon_") for name, value in pairs):
        detail = "a key does not belong in an address, where logs keep it; send it as `Authorization: Bearer <key>`"
        raise ProblemError(KEY_REQUIRED, detail, headers=_challenge())


def _unknown() -> ProblemError:
    detail = "send a valid key as `Authorization: Bearer <key>`; `carillon up` says where yours is"
    return ProblemError(KEY_REQUIRED, detail, headers=_challenge())


def _challenge() -> dict[str, str]:
    return {"WWW-Authenticate": 'Bearer realm="carillon"'}
