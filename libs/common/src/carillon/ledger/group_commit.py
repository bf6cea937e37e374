"""Group commit: many small writes of many coroutines, as one statement each few milliseconds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import asyncpg

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

#: Errors that say nothing about the items: the server was away, shutting down, or out of room.
SERVER_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # asyncpg's word for a connection that was cut in the middle of a statement.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)

#: After a batch of several the next one is gathered for this long: a statement costs PostgreSQL about the same for one
#: item as for thirty, and a busy platform has better use for the difference. More than this makes all that executes go
#: in step, so that worker, ledger and broker wait for each other: with 5 ms a worker did a tenth less.
LINGER_SECONDS = 0.002
#: A batch that PostgreSQL broke off because of others is written so often.
TRIES = 5


class GroupCommit(Generic[Item, Outcome]):
    """Gathers items while the last batch is being written, then writes them together.

    `write` takes up to `most` items and returns one outcome (or the error of that item alone) for each, in order.
    An idle platform writes at once; a busy one lingers some milliseconds between batches. At most `room` items wait; a
    caller beyond that waits for room. A batch that fails for what is in it is written again one by one, so that one bad
    item fails alone.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        most: int = 500,
        room: int = 10_000,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self._write = write
        self._most = most
        self._room = room
        self._linger = linger
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Outcome:
        """Write one item with whatever else is waiting; returns or raises when its batch is committed or refused."""
        while len(self._waiting) >= self._room:  # noqa: ASYNC110 - an event would cost every call what this costs none
            await asyncio.sleep(LINGER_SECONDS)
        return await self._enqueue(item)

    async def together(self, items: Sequence[Item]) -> list[Outcome | BaseException]:
        """Write several items, next to each other; returns the outcome of each, or the error of it alone, in order.

        More than `most` are several statements, so that a server that goes away may have written some of them.
        """
        while self._waiting and len(self._waiting) + len(items) > self._room:  # noqa: ASYNC110 - as above
            await asyncio.sleep(LINGER_SECONDS)
        return await asyncio.gather(*map(self._enqueue, items), return_exceptions=True)

    def _enqueue(self, item: Item) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain(), name="group commit")
        return future

    async def _drain(self) -> None:
        try:
            # One turn of the loop, so that callers who are ready now share the first batch.
            await asyncio.sleep(0)
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                await self._commit(batch)
                if len(batch) > 1:
                    await asyncio.sleep(self._linger)
        finally:
            # Only an interrupted writer leaves any, and nobody else would ever answer them.
            self._refuse(list(self._waiting), ConnectionError("the write was interrupted"))
            self._waiting.clear()

    async def _commit(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._written([item for item, _ in batch])
        except SERVER_AWAY as error:
            self._refuse(batch, error)
        except Exception as error:  # noqa: BLE001 - every caller gets it
            if len(batch) == 1:
                self._refuse(batch, error)
                return
            for one in batch:
                await self._commit([one])
        except BaseException as error:
            self._refuse(batch, ConnectionError(f"the write was interrupted: {error!r}"))
            raise
        else:
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _written(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        for _ in range(TRIES - 1):
            # A deadlock with somebody else, who has gone on by now, says nothing about the items.
            with suppress(asyncpg.TransactionRollbackError):
                return await self._write(items)
        return await self._write(items)

    @staticmethod
    def _refuse(batch: Sequence[tuple[Item, asyncio.Future[Outcome]]], error: BaseException) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
