"""Fan-in: what became of many steps that were awaited together, and whether that is enough."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from carillon.errors import FanInError, InvalidArgumentsError, StepCancelledError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Missed:
    """A member of a fan-in that has no result: where it stood, counted from 0, what it was made of, and why."""

    at: int
    item: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Gathered(Generic[Result]):
    """What became of the members of a fan-in.

    Failed are those whose run failed. Skipped are those that were cancelled, that said themselves that there is nothing
    to do (`carillon.errors.Cancel`), or that were not begun, because too many others had failed.
    """

    #: By their places; None for a member without one.
    results: Sequence[Result | None]
    successful: Sequence[int]
    failed: Sequence[Missed]
    skipped: Sequence[Missed]

    @property
    def is_partial(self) -> bool:
        """Whether some members have no result."""
        return bool(self.failed or self.skipped)

    @property
    def summary(self) -> dict[str, Any]:
        """The counts, and a reason for each member without a result, as JSON types."""

        def reasons(missed: Sequence[Missed]) -> list[dict[str, Any]]:
            return [{"at": one.at, "reason": one.reason} for one in missed]

        return {
            "total": len(self.results),
            "successful": len(self.successful),
            "failed": len(self.failed),
            "skipped": len(self.skipped),
            "failures": reasons(self.failed),
            "skips": reasons(self.skipped),
        }


class Together:
    """Steps that are awaited together, of which so many at once are under way, and so many have to go well.

    `need` is the least share of them, from 0 to 1.
    """

    def __init__(self, items: Sequence[Any], concurrency: int | None, need: float) -> None:
        if concurrency is not None and concurrency < 1:
            message = f"concurrency must be 1 or more, and not {concurrency}; leave it out for all at once"
            raise InvalidArgumentsError(message)
        if not (math.isfinite(need) and 0 <= need <= 1):
            message = f"need is the least share of members that have to go well, from 0 to 1, and not {need!r}"
            raise InvalidArgumentsError(message)
        self._items = items
        self._concurrency = len(items) if concurrency is None else concurrency
        self._need = math.ceil(need * len(items) - 1e-9)
        self._results: list[Any] = [None] * len(items)
        self._missed: dict[int, tuple[bool, str]] = {}
        self._ended = 0
        self._begun = 0
        self._is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def missing(self) -> int:
        """How many more have to end before anything follows: all, or where others wait, a quarter of those under way.

        Every end that is told has the code executed again over the whole record; so not each is.
        """
        under_way = self._begun - self._ended
        return max(1, under_way if self._begun == len(self._items) else self._concurrency // 4)

    async def outcome(self, begin: Callable[[Any], asyncio.Future[Any]]) -> Gathered[Any]:
        """Begin all members, one after the other as there is room, and wait for their ends.

        `begin` makes the future of a member of its item. Raises `FanInError` where too many failed.
        """
        self._fill(begin)
        if self._items:
            await self._is_over
        batch = self._batch()
        if len(batch.successful) < self._need:
            first = next(iter((*batch.failed, *batch.skipped)))
            message = (
                f"{len(batch.successful)} of {len(self._items)} members went well, and {self._need} have to; the first "
                f"that did not, at {first.at}: {first.reason}"
            )
            raise FanInError(message, batch)
        return batch

    @property
    def _is_hopeless(self) -> bool:
        return len(self._items) - len(self._missed) < self._need

    def _fill(self, begin: Callable[[Any], asyncio.Future[Any]]) -> None:
        while self._begun < len(self._items) and self._begun - self._ended < self._concurrency:
            if self._is_hopeless:
                break
            at = self._begun
            self._begun += 1
            begin(self._items[at]).add_done_callback(partial(self._end, begin, at))

    def _end(self, begin: Callable[[Any], asyncio.Future[Any]], at: int, done: asyncio.Future[Any]) -> None:
        self._ended += 1
        if done.cancelled():
            self._missed[at] = (True, "nobody waited for it any more")
        elif (error := done.exception()) is not None:
            self._missed[at] = (isinstance(error, StepCancelledError), str(error))
        else:
            self._results[at] = done.result()
        self._fill(begin)
        if self._begun == self._ended and not self._is_over.done():
            self._is_over.set_result(None)

    def _batch(self) -> Gathered[Any]:
        for at in range(self._begun, len(self._items)):
            self._missed[at] = (True, "not begun: too many others had failed")
        missed = {
            at: (skipped, Missed(at, self._items[at], reason)) for at, (skipped, reason) in sorted(self._missed.items())
        }
        return Gathered(
            results=self._results,
            successful=[at for at in range(len(self._items)) if at not in missed],
            failed=[one for skipped, one in missed.values() if not skipped],
            skipped=[one for skipped, one in missed.values() if skipped],
        )
