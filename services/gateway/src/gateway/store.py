"""Where keys and shared secrets are kept."""

from __future__ import annotations

import secrets as random
import time

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.ledger.audit import Action, Actor, record
from gateway.keys import Key, digest_of, owner_of
from gateway.models import keys, secrets

#: A revoked key works at most this much longer.
FRESH_SECONDS = 5.0
MOST_KEYS = 1_000


class Keys:
    """The keys, read from the database again when the last reading is some seconds old."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: list[Key] = []
        self._stale_at = 0.0

    async def owner(self, secret: str) -> str | None:
        """The name of the key that this is, or None."""
        if time.monotonic() >= self._stale_at:
            query = select(keys.c.name, keys.c.digest).where(keys.c.revoked_at.is_(None)).limit(MOST_KEYS)
            async with self._engine.connect() as connection:
                self._known = [Key(*row) for row in await connection.execute(query)]
            self._stale_at = time.monotonic() + FRESH_SECONDS
        return owner_of(secret, self._known)

    async def ensure(self, name: str, secret: str, actor: Actor, reason: str | None = None) -> None:
        """Let this secret, and no earlier one, be the key of that name; what that changes is audited."""
        async with self._engine.begin() as connection:
            action = await _ensure(connection, name, digest_of(secret))
            if action is not None:
                await record(connection, actor.did(action, name, reason))


async def _ensure(connection: AsyncConnection, name: str, digest: bytes) -> Action | None:
    """Let the key of that name have this digest; returns what that was, if it changed anything."""
    made = insert(keys).values(name=name, digest=digest).on_conflict_do_nothing(index_elements=["name"])
    if (await connection.execute(made)).rowcount:
        return "key.created"
    known = keys.c.name == name
    query = select(keys.c.digest, keys.c.revoked_at).where(known).with_for_update()
    before = (await connection.execute(query)).one()
    if before.digest == digest and before.revoked_at is None:
        return None
    await connection.execute(update(keys).where(known).values(digest=digest, revoked_at=None, created_at=func.now()))
    return "key.restored" if before.digest == digest else "key.replaced"


class Secrets:
    """Random bytes by name, the same for every gateway of this installation."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[str, bytes] = {}

    async def get(self, name: str) -> bytes:
        """The secret of that name, made when it is first asked for."""
        if name not in self._known:
            async with self._engine.begin() as connection:
                made = insert(secrets).values(name=name, value=random.token_bytes(32))
                await connection.execute(made.on_conflict_do_nothing())
                query = select(secrets.c.value).where(secrets.c.name == name)
                self._known[name] = (await connection.execute(query)).scalar_one()
        return self._known[name]
