"""Results that are too large for a row of the ledger: they lie in storage, and the row says where.

The key is `results/<day>/<run>-<attempt>.json`, where the day (UTC) is that on which the attempt ended its work. What a
day holds is deleted when the ledger has dropped the day and the one after it: a result is never gone before its run.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import obstore
import orjson
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from carillon import clock
from carillon.errors import CarillonError, TransientError

#: A larger result lies in storage.
MOST_INLINE_BYTES = 256 * 1024
#: Storage has so many seconds for a result, in so many tries.
STORE_SECONDS = 30.0
TRIES = 3
PAUSE_SECONDS = 0.5
#: What a row has in the place of its result: an object with this member alone, and in it the key and the bytes.
MARK = "carillon.stored_result"
#: Objects deleted by one request.
BATCH = 1000
_AWAY = (BaseError, OSError, TimeoutError)
_DAY = re.compile(r"^results/(\d{4}-\d\d-\d\d)\Z")


class Stored(NamedTuple):
    """Where the result of a run lies."""

    key: str
    #: Of the JSON.
    bytes: int


class ResultGoneError(CarillonError):
    """A result was in storage, and is not there any more."""


def is_large(result: str) -> bool:
    """Whether a result, as JSON text, is too large for its row."""
    return len(result) > MOST_INLINE_BYTES // 4 and len(result.encode()) > MOST_INLINE_BYTES


class StoredResults:
    """Puts results into storage, reads them again, and forgets them with their day."""

    def __init__(self, storage: Callable[[], ObjectStore]) -> None:
        #: Opened when it is used first: most platforms never have a result that is too large.
        self._storage = storage

    async def put(self, run: UUID, attempt: int, result: str) -> str:
        """Put a result there; returns what its row is to have in its place, as JSON text.

        Doing it twice leaves one object. Raises `TransientError` where storage does not take it.
        """
        encoded = result.encode()
        key = f"results/{clock.now():%F}/{run}-{attempt}.json"
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._put(key, encoded)
        except _AWAY as error:
            message = f"storage did not take the result of {len(encoded)} bytes ({_told(error)}); check STORAGE_URL"
            raise TransientError(message) from error
        return orjson.dumps({MARK: {"key": key, "bytes": len(encoded)}}).decode()

    async def _put(self, key: str, encoded: bytes) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                await obstore.put_async(self._storage(), key, encoded)
            except _AWAY:
                if not tries_left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def json(self, stored: Stored) -> bytes:
        """A result as JSON. Raises `ResultGoneError`, or `TransientError` where storage does not answer."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                found = await obstore.get_async(self._storage(), stored.key)
                return bytes(await found.bytes_async())
        except FileNotFoundError as error:
            message = f"the result was kept at {stored.key}, and is not there any more"
            raise ResultGoneError(message) from error
        except _AWAY as error:
            message = f"storage does not answer ({_told(error)}); check STORAGE_URL"
            raise TransientError(message) from error

    async def value(self, run: UUID, result: Any) -> Any:
        """The result of a run, given what its row has. Raises what `json` raises."""
        stored = stored_in(run, result)
        return result if stored is None else orjson.loads(await self.json(stored))

    async def delete(self, results: Sequence[Stored]) -> None:
        """Delete these results, those that are there.

        Raises `TransientError` where storage does not answer; what is left then goes with its day.
        """
        keys = [stored.key for stored in results]
        try:
            async with asyncio.timeout(STORE_SECONDS):
                try:
                    await obstore.delete_async(self._storage(), keys)
                except FileNotFoundError:
                    # A folder stops at the first that is not there.
                    for key in keys:
                        with suppress(FileNotFoundError):
                            await obstore.delete_async(self._storage(), key)
        except _AWAY as error:
            message = f"storage does not answer ({_told(error)}); check STORAGE_URL"
            raise TransientError(message) from error

    async def forget(self, age: timedelta) -> int:
        """Delete the results of days whose runs are dropped at this age; returns how many.

        Raises `TransientError` where storage does not answer; what was deleted until then stays so.
        """
        oldest, deleted = oldest_kept(clock.now(), age), 0
        try:
            listed = await obstore.list_with_delimiter_async(self._storage(), "results")
            days = [found[1] for prefix in listed["common_prefixes"] if (found := _DAY.match(prefix))]
            for day in days:
                if date.fromisoformat(day) < oldest:
                    deleted += await self._delete(f"results/{day}")
        except _AWAY as error:
            message = f"storage does not answer ({_told(error)}); check STORAGE_URL"
            raise TransientError(message) from error
        return deleted

    async def _delete(self, prefix: str) -> int:
        deleted = 0
        async for objects in obstore.list(self._storage(), prefix, chunk_size=BATCH):
            await obstore.delete_async(self._storage(), [found["path"] for found in objects])
            deleted += len(objects)
        return deleted


def oldest_kept(now: datetime, age: timedelta) -> date:
    """The oldest day whose results are kept when what ended this long ago is dropped.

    One more than of runs: an attempt that ended its work before midnight may be the end of a run after it.
    """
    return (now - age).date() - timedelta(days=1)


def stored_in(run: UUID, result: object) -> Stored | None:
    """Where the result of a run lies, if what its row has says so; None where the row has the result itself."""
    if not isinstance(result, Mapping) or len(result) != 1 or not isinstance(told := result.get(MARK), Mapping):
        return None
    key, size = told.get("key"), told.get("bytes")
    # Only its own: a task may return whatever it likes, and must not make anybody read another's objects.
    if not isinstance(size, int) or not re.fullmatch(rf"results/\d{{4}}-\d\d-\d\d/{run}-\d+\.json", str(key)):
        return None
    return Stored(str(key), size)


def _told(error: BaseException) -> str:
    """The first line of an error; what storage says beyond it may name what nobody should read."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
