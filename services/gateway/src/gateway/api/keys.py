"""Keys over HTTP: which there are, making one, and revoking one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import Response, get, post

from carillon.errors import InvalidArgumentsError
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of
from gateway.api.views import View
from gateway.errors import CONFLICT, NOT_FOUND, ProblemError
from gateway.keys import LOCAL, NAME, new_secret
from gateway.store import Keys
from gateway.submissions import checked

#: The body of `POST /api/v1/keys`.
CREATE: dict[str, Any] = {
    **REASON,
    "properties": {
        "name": {"description": "Whose it is; the audit trail calls its holder so.", "type": "string", "pattern": NAME},
        "reason": WHY,
    },
    "required": ["name"],
}


class KeyView(View, frozen=True, kw_only=True):
    """A key by its name; its secret is kept nowhere."""

    name: str
    created_at: datetime
    revoked_at: datetime | None


class KeyList(View, frozen=True, kw_only=True):
    """All keys by name, also what was revoked."""

    keys: list[KeyView]


class CreatedKey(View, frozen=True, kw_only=True):
    """A new key with its secret, which is shown this once."""

    name: str
    key: str


class RevokedKey(View, frozen=True, kw_only=True):
    """A key that opens nothing any more. `changed` is false when it was revoked before."""

    name: str
    changed: bool


@get("/api/v1/keys", tags=["Keys"])
async def list_keys(keys: Keys) -> KeyList:
    """The names of all keys, when each was made, and when it was revoked."""
    return KeyList(keys=[KeyView.of(key) for key in await keys.all()])


@post("/api/v1/keys", status_code=201, tags=["Keys"])
async def create_key(request: Asked, keys: Keys, bodies: Bodies) -> Response[CreatedKey]:
    """Make a key for somebody; every gateway knows it within half a second."""
    wishes = checked(await bodies.json(request), CREATE)
    name, secret = wishes["name"], new_secret()
    if name == LOCAL:
        raise ProblemError(CONFLICT, f"{LOCAL} is the key in the gateway's key file; take another name")
    try:
        await keys.create(name, secret, operator_of(request), wishes.get("reason"))
    except InvalidArgumentsError as error:
        raise ProblemError(CONFLICT, str(error)) from None
    return Response(CreatedKey(name=name, key=secret), headers={"Cache-Control": "no-store"})


@post("/api/v1/keys/{name:str}/revoke", status_code=200, tags=["Keys"])
async def revoke_key(request: Asked, name: str, keys: Keys, bodies: Bodies) -> RevokedKey:
    """Let a key open nothing any more, at any gateway, after 5 s at the latest."""
    reason = await bodies.reason(request)
    try:
        return RevokedKey(name=name, changed=await keys.revoke(name, operator_of(request), reason))
    except LookupError:
        raise ProblemError(NOT_FOUND, "no key has this name; GET /api/v1/keys lists them") from None
    except InvalidArgumentsError as error:
        raise ProblemError(CONFLICT, str(error)) from None
