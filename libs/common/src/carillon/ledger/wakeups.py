"""Wake-ups: NOTIFY from the ledger, heard on a connection of its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Self

import asyncpg
import structlog

from carillon.ledger.group_commit import SERVER_AWAY

log = structlog.get_logger(__name__)

CHANNEL = "carillon_runs"
#: How often the connection is proved alive: a half-open one would stay silent for ever.
PROOF_SECONDS = 10


class Wakeups:
    """Sets the event of a domain when runs of it became due. A lost notification costs one poll, never a run."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._woken: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._listener: asyncio.Task[None] | None = None

    def subscribe(self, domain: str) -> asyncio.Event:
        """The event that is set when runs of the domain became due; its reader clears it."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen_forever(), name="wake-ups")
        return self._woken[domain]

    def tell(self, name: str) -> None:
        """Set the event of whoever subscribed to this in this process; nobody else hears of it."""
        if name in self._woken:
            self._woken[name].set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except (*SERVER_AWAY, asyncpg.PostgresError) as error:
                log.debug("wake-ups interrupted", error=repr(error))
            # Whatever was said while nobody listened: everyone looks once.
            for woken in self._woken.values():
                woken.set()
            await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=5, server_settings={"application_name": "carillon wakeups"}
        )
        try:
            await connection.add_listener(CHANNEL, self._wake)
            for woken in self._woken.values():
                woken.set()
            while True:
                await asyncio.sleep(PROOF_SECONDS)
                await connection.execute("select 1", timeout=5)
        finally:
            connection.terminate()

    def _wake(self, _connection: object, _pid: int, _channel: str, domain: object) -> None:
        self._woken[str(domain)].set()
