"""Calling back: who asked to be told of a run's end, and the secret that this receiver knows.

Whoever can check a signature can also make it. So no two receivers have the same secret: each one's is the HMAC-SHA256
(RFC 2104) of its origin, with a root that nobody is told.
"""

from __future__ import annotations

import base64
import hmac
import secrets as random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from carillon.callbacks import origin_of
from carillon.contracts import RunEnded
from carillon.errors import ConfigurationError
from carillon.ledger.audit import Actor, record
from notifications.errors import WebhookRefusedError
from notifications.models import roots
from notifications.webhooks import Webhook

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from notifications.webhooks import Poster

#: After a root was replaced, messages are signed with the one before it as well for so long.
CHANGEOVER = timedelta(days=7)


class CallbackSecrets:
    """The secrets of all receivers, derived from the roots in `notifications.roots`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, origin: str) -> list[str]:
        """The secret of a receiver such as `https://shop.example`; while secrets change, also the one before it.

        The first root is made when it is first needed.
        """
        async with self._engine.begin() as connection:
            values = await _newest(connection)
            if not values:
                await _put(connection, 1)
                values = await _newest(connection)
        return [_derived(value, origin) for value in values]

    async def replace(self, actor: Actor, reason: str | None = None) -> None:
        """Give every receiver a new secret. Messages are signed with the one before it too, for seven days."""
        async with self._engine.begin() as connection:
            number = (await connection.execute(select(func.max(roots.c.number)))).scalar() or 0
            await _put(connection, number + 1)
            await connection.execute(delete(roots).where(roots.c.number < number))
            await record(connection, actor.did("secret.replaced", "callbacks", reason))


async def _newest(connection: AsyncConnection) -> list[bytes]:
    """The root that counts and, for a while, the one before it."""
    query = select(roots.c.value, roots.c.made_at > func.now() - CHANGEOVER).order_by(roots.c.number.desc()).limit(2)
    rows = (await connection.execute(query)).all()
    return [value for value, _ in (rows if rows and rows[0][1] else rows[:1])]


async def _put(connection: AsyncConnection, number: int) -> None:
    # Of two who make the same root, one does.
    made = insert(roots).values(number=number, value=random.token_bytes(32))
    await connection.execute(made.on_conflict_do_nothing())


def _derived(root: bytes, origin: str) -> str:
    return f"whsec_{base64.b64encode(hmac.digest(root, f'callback {origin}'.encode(), 'sha256')).decode()}"


class Callbacks:
    """Knows how a run ended, and who is to be told. The event that says so is not believed: anyone may have sent it."""

    def __init__(
        self, find: Callable[[UUID], Awaitable[Mapping[str, Any] | None]], secrets: CallbackSecrets, poster: Poster
    ) -> None:
        self._find = find
        self._secrets = secrets
        self._poster = poster

    async def about(self, run: UUID) -> tuple[RunEnded, Webhook]:
        """How this run ended, as the ledger has it, and the receiver that asked to be told.

        Raises `WebhookRefusedError` for a run that is not there, has not ended, or names no address to call.
        """
        row = await self._find(run)
        if row is None:
            message = f"the run {run} was deleted, and with it the address to call back"
            raise WebhookRefusedError(message)
        if row["finished_at"] is None or row["callback_url"] is None:
            message = f"the run {run} has not ended, or nobody asked to be told of it"
            raise WebhookRefusedError(message)
        origin = origin_of(row["callback_url"])
        ended = RunEnded(
            run_id=run,
            task=row["task"],
            state=row["state"],
            attempt=row["attempt"],
            finished_at=row["finished_at"],
            error=(row["error"] or {}).get("message"),
            receiver=origin,
        )
        try:
            return ended, Webhook(row["callback_url"], await self._secrets.of(origin), self._poster)
        except ConfigurationError:
            message = "the callback_url of the run is not a web address; submit it with one as https://host/path"
            raise WebhookRefusedError(message) from None
