"""Processing the items of a batch within one task: some may fail, and the policy says how many."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from carillon.errors import BatchFailedError, Cancel, ConfigurationError, InvalidArgumentsError, PermanentError, Snooze
from carillon.limits import check_number
from carillon.partial import Partial
from carillon.policies.asking import in_words
from carillon.policies.bounds import check_name, check_span

Item = TypeVar("Item")
Value = TypeVar("Value")

#: More are runs of their own: `task.kiq_many`.
MOST_ITEMS = 10_000
#: So many failures an error tells of.
MOST_TOLD = 3
#: What a share may be off by, as a binary fraction of a decimal one.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Batch:
    """How the items of a batch are processed, and when that is enough.

    ```python
    INVOICES = Batch("invoices", need=0.9, concurrency=10, stop_after=50)

    summary = await policies.batch(INVOICES, send_invoice, orders)
    return summary.ended()
    ```
    """

    name: str
    _: KW_ONLY
    #: The least share of all items that must succeed, more than 0 and at most 1; what was skipped has not.
    need: float
    #: So many items at once.
    concurrency: int = 10
    #: After so many failures the items that have not begun are skipped; None to try them all.
    stop_after: int | None = None
    #: An item that takes longer has failed.
    timeout: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        """Refuse a policy that could not be followed; raises `ConfigurationError`."""
        check_name("batch", self.name)
        check_number("concurrency", self.concurrency)
        if self.stop_after is not None:
            check_number("stop_after", self.stop_after)
        check_span(f"the batch {self.name}", "timeout", self.timeout)
        if isinstance(self.need, bool) or not isinstance(self.need, int | float) or not 0 < self.need <= 1:
            message = f"the batch {self.name} has need={self.need!r}; it is a share, more than 0 and at most 1"
            raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class Succeeded(Generic[Value]):
    """An item that was processed; positions count from 0."""

    position: int
    value: Value


@dataclass(frozen=True, slots=True)
class Failed:
    """An item that was not, and why in one line."""

    position: int
    reason: str
    #: Whether trying it again cannot help.
    is_permanent: bool


@dataclass(frozen=True, slots=True)
class Summary(Generic[Value]):
    """What became of the items of a batch, each in the order of the positions."""

    policy: Batch
    successful: Sequence[Succeeded[Value]]
    failed: Sequence[Failed]
    #: The positions of what was not begun.
    skipped: Sequence[int]
    #: The positions of what had to succeed and has not.
    missing: Sequence[int]

    @property
    def total(self) -> int:
        """How many items there were."""
        return len(self.successful) + len(self.failed) + len(self.skipped)

    @property
    def least(self) -> int:
        """How many of them had to succeed."""
        return math.ceil(self.policy.need * self.total - ROUNDING)

    @property
    def shown(self) -> dict[str, Any]:
        """The summary as a result of a run; its values must be JSON types, pydantic models or events."""
        return {
            "total": self.total,
            "successful": [{"position": done.position, "value": done.value} for done in self.successful],
            "failed": [asdict(failed) for failed in self.failed],
            "skipped": list(self.skipped),
        }

    def ended(self) -> dict[str, Any] | Partial[dict[str, Any]]:
        """What the task returns: the summary where all succeeded, and a `Partial` of it where enough did.

        Raises `BatchFailedError` where too few did, or one that was required has not: the run is tried again, with all
        its items, so what succeeded must be safe to repeat (`policies.idempotent`). Raises `PermanentError` where
        nothing that failed can be mended by that.
        """
        if len(self.successful) == self.total:
            return self.shown
        if len(self.successful) >= self.least and not self.missing:
            return Partial(self.shown, reason=self._told())
        had_to = f"at least {self.least} had to"
        if self.missing:
            had_to += f", and so had those at {', '.join(map(str, self.missing[:MOST_TOLD]))}"
        message = f"{self._told()}; {had_to}"
        if self.failed and all(failed.is_permanent for failed in self.failed):
            raise PermanentError(message)
        raise BatchFailedError(message)

    def _told(self) -> str:
        told = "; ".join(f"at {failed.position}: {failed.reason}" for failed in self.failed[:MOST_TOLD])
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{len(self.successful)} of {self.total} succeeded{skipped}; {len(self.failed)} failed ({told})"


class Processing(Generic[Item, Value]):
    """One batch while it is processed."""

    def __init__(self, policy: Batch, do: Callable[[Item], Awaitable[Value]], items: Sequence[Item]) -> None:
        if len(items) > MOST_ITEMS:
            message = (
                f"the batch {policy.name} was given {len(items):,} items, the most is {MOST_ITEMS:,}; submit one run "
                "for each, with `kiq_many`"
            )
            raise InvalidArgumentsError(message)
        self._policy = policy
        self._do = do
        self._items = items
        self._successful: list[Succeeded[Value]] = []
        self._failed: list[Failed] = []
        #: An item said what to do with the whole run.
        self._instruction: Cancel | Snooze | None = None

    async def summary(self, required: Callable[[Item], bool] | None) -> Summary[Value]:
        """Process the items; raises what one of them says of the whole run, a `Cancel` or `Snooze`."""
        items = iter(enumerate(self._items))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._policy.concurrency, len(self._items))):
                group.create_task(self._work(items), name=f"batch {self._policy.name}")
        if self._instruction is not None:
            raise self._instruction
        done = {one.position for one in self._successful}
        begun = done | {one.position for one in self._failed}
        missing = (at for at, item in enumerate(self._items) if required is not None and required(item))
        return Summary(
            self._policy,
            sorted(self._successful, key=lambda one: one.position),
            sorted(self._failed, key=lambda one: one.position),
            [at for at in range(len(self._items)) if at not in begun],
            [at for at in missing if at not in done],
        )

    @property
    def _is_stopped(self) -> bool:
        most = self._policy.stop_after
        return self._instruction is not None or (most is not None and len(self._failed) >= most)

    async def _work(self, items: Iterator[tuple[int, Item]]) -> None:
        while not self._is_stopped and (taken := next(items, None)) is not None:
            await self._process(*taken)

    async def _process(self, position: int, item: Item) -> None:
        try:
            async with asyncio.timeout(self._policy.timeout.total_seconds()):
                value = await self._do(item)
        except (Cancel, Snooze) as instruction:
            self._instruction = self._instruction or instruction
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # It awaited something that was cancelled, and nobody wants this to end.
            self._failed.append(Failed(position, in_words(error), is_permanent=False))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            self._failed.append(Failed(position, in_words(error), is_permanent=isinstance(error, PermanentError)))
        else:
            self._successful.append(Succeeded(position, value))
