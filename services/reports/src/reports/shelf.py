"""Where rendered files lie: the platform's storage, a folder or a bucket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

#: A report is a few hundred kilobytes; storage that needs longer than this many seconds is not well.
PUT_SECONDS = 60
GET_SECONDS = 60


class Shelf:
    """Keeps files by key. A file appears whole or not at all, and replaces one of the same key."""

    def __init__(self, storage: ObjectStore) -> None:
        self._storage = storage

    async def keep(self, key: str, content: bytes) -> None:
        """Put one file."""
        async with asyncio.timeout(PUT_SECONDS):
            await obstore.put_async(self._storage, key, content)

    async def keep_first(self, key: str, content: bytes) -> bytes:
        """Put one file, unless one of that key is there; returns what is there then."""
        try:
            async with asyncio.timeout(PUT_SECONDS):
                await obstore.put_async(self._storage, key, content, mode="create")
        except AlreadyExistsError:
            return await self.read(key)
        return content

    async def read(self, key: str) -> bytes:
        """One file; raises `FileNotFoundError` where there is none."""
        async with asyncio.timeout(GET_SECONDS):
            found = await obstore.get_async(self._storage, key)
            return bytes(await found.bytes_async())
