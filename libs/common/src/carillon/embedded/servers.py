"""The servers of one state folder as one context: started together, stopped together, found again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from carillon.embedded.folder import StateFolder
from carillon.embedded.postgres import Postgres
from carillon.embedded.valkey import Valkey

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


class Servers:
    """PostgreSQL and Valkey in `home`; either can be left out where the caller has a server of its own.

    The folder belongs to one process at a time, also when both servers are left out.
    """

    def __init__(self, home: Path, *, postgres: bool = True, valkey: bool = True) -> None:
        self._folder = StateFolder(home)
        self._postgres = Postgres(self._folder) if postgres else None
        self._valkey = Valkey(self._folder) if valkey else None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._folder.__enter__)
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop what runs and let the folder go; calling it again changes nothing."""
        running = [server for server in (self._postgres, self._valkey) if server is not None]
        try:
            await asyncio.gather(*(server.stop() for server in running))
        finally:
            self._folder.close()

    async def _start(self) -> None:
        starting = [server.start() for server in (self._postgres, self._valkey) if server is not None]
        failures = [
            end for end in await asyncio.gather(*starting, return_exceptions=True) if isinstance(end, BaseException)
        ]
        if failures:
            raise failures[0]

    @property
    def home(self) -> Path:
        """The state folder."""
        return self._folder.path

    @property
    def database_url(self) -> str:
        """The address of the database `carillon`."""
        if self._postgres is None:
            message = "these servers were asked for without PostgreSQL"
            raise LookupError(message)
        return self._postgres.url

    @property
    def redis_url(self) -> str:
        """The address of the Valkey."""
        if self._valkey is None:
            message = "these servers were asked for without Valkey"
            raise LookupError(message)
        return self._valkey.url

    async def restart_ended(self) -> None:
        """Start those again that `ended` names, on their data."""
        servers = [server for server in (self._postgres, self._valkey) if server is not None]
        await asyncio.gather(*(server.start() for server in servers if server.child and not server.child.alive))

    def ended(self) -> list[str]:
        """The names of servers that ended although nobody stopped them."""
        children = [server.child for server in (self._postgres, self._valkey) if server is not None]
        return [child.name for child in children if child is not None and not child.alive]
