"""Where keys and shared secrets are kept."""

from __future__ import annotations

import math
import re
import secrets as random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.errors import InvalidArgumentsError
from carillon.ledger.audit import Action, Actor, record
from gateway.keys import NAME, Key, digest_of, owner_of
from gateway.models import keys, secrets

#: A revoked key works at most this much longer.
FRESH_SECONDS = 5.0
#: A new key is known after so long at the latest; wrong keys make nobody read more often.
PATIENCE_SECONDS = 0.5
#: With those that were revoked.
MOST_KEYS = 1_000

_STANDS = keys.c.revoked_at.is_(None)
_ALONE = text("lock table gateway.keys in share row exclusive mode")


class Keys:
    """The keys, read from the database again when the last reading is some seconds old."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: list[Key] = []
        self._read_at = -math.inf

    async def owner(self, secret: str) -> str | None:
        """The name of the key that this is, or None."""
        found = await self._look(secret, FRESH_SECONDS)
        return found or await self._look(secret, PATIENCE_SECONDS)

    async def _look(self, secret: str, fresh: float) -> str | None:
        began = time.monotonic()
        if began - self._read_at >= fresh:
            query = select(keys.c.name, keys.c.digest).where(_STANDS).limit(MOST_KEYS)
            async with self._engine.connect() as connection:
                self._known = [Key(*row) for row in await connection.execute(query)]
            self._read_at = began
        return owner_of(secret, self._known)

    async def all(self) -> list[Mapping[str, Any]]:
        """The name of every key, when it was made, and when it was revoked, if it was; by name."""
        query = select(keys.c.name, keys.c.created_at, keys.c.revoked_at).order_by(keys.c.name)
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def create(self, name: str, secret: str, actor: Actor, reason: str | None) -> None:
        """Let this secret be a key of that name, which was free or revoked.

        Raises `InvalidArgumentsError` where a key has that name, or there are too many.
        """
        async with self._changing() as connection:
            before = await _kept(connection, keys.c.name == name)
            if before is not None and before["revoked_at"] is None:
                message = f"there is a key named {name}; revoke it first, or take another name"
                raise InvalidArgumentsError(message)
            if before is None and await _count(connection) >= MOST_KEYS:
                message = f"there are {MOST_KEYS} keys, which is the most; make one anew that was revoked"
                raise InvalidArgumentsError(message)
            await _put(connection, name, digest_of(secret))
            await record(connection, actor.did("key.created", name, reason))

    async def revoke(self, name: str, actor: Actor, reason: str | None) -> bool:
        """Let the key of that name open nothing any more; False where it was revoked before.

        Raises `LookupError` where there is none, and `InvalidArgumentsError` for the last one that opens anything.
        """
        if not re.match(NAME, name):
            raise LookupError(name)
        async with self._changing() as connection:
            before = await _kept(connection, keys.c.name == name)
            if before is None:
                raise LookupError(name)
            if before["revoked_at"] is not None:
                return False
            if await _count(connection, _STANDS) == 1:
                message = "this is the last key, and nobody could act without it; create another one first"
                raise InvalidArgumentsError(message)
            await connection.execute(update(keys).where(keys.c.name == name).values(revoked_at=func.now()))
            await record(connection, actor.did("key.revoked", name, reason))
        return True

    async def ensure(self, name: str, secret: str, actor: Actor, reason: str | None = None) -> bool:
        """Let this secret, and no earlier one, be the key of that name; what that changes is audited.

        A secret that is a key already stays what it is, under whatever name. Returns False where that one was revoked:
        it may be known to others.
        """
        digest = digest_of(secret)
        async with self._changing() as connection:
            same = await _kept(connection, keys.c.digest == digest)
            if same is not None:
                return same["revoked_at"] is None
            before = await _kept(connection, keys.c.name == name)
            await _put(connection, name, digest)
            action: Action = "key.created" if before is None else "key.replaced"
            await record(connection, actor.did(action, name, reason))
        return True

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction in which nobody else changes keys, so that what it counts stays true."""
        async with self._engine.begin() as connection:
            await connection.execute(_ALONE)
            yield connection
        self._read_at = -math.inf


async def _kept(connection: AsyncConnection, condition: ColumnElement[bool]) -> RowMapping | None:
    query = select(keys.c.revoked_at).where(condition)
    return (await connection.execute(query)).mappings().one_or_none()


async def _count(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> int:
    return (await connection.execute(select(func.count()).select_from(keys).where(*conditions))).scalar_one()


async def _put(connection: AsyncConnection, name: str, digest: bytes) -> None:
    fresh = {"digest": digest, "revoked_at": None, "created_at": func.now()}
    made = insert(keys).values(name=name, **fresh)
    await connection.execute(made.on_conflict_do_update(index_elements=["name"], set_=fresh))


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
