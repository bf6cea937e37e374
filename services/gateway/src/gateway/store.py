"""Where keys and shared secrets are kept."""

from __future__ import annotations

import secrets as random
import time

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

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

    async def ensure(self, name: str, secret: str) -> None:
        """Let this secret, and no earlier one, be the key of that name."""
        row = {"digest": digest_of(secret), "revoked_at": None}
        statement = insert(keys).values(name=name, **row)
        changed = {**row, "created_at": func.now()}
        async with self._engine.begin() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


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
