"""Admission: letting runs in that wait for limits of their task or domain, counted in the ledger (decision 0013)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from carillon.ledger.statements import limits as statements

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

Row = Mapping[str, Any]

#: Runs of one task let in, and keys looked at, by one statement.
BATCH = 500
KEYS = 1_000
#: Full buckets forgotten at once.
FORGOTTEN = 1_000
#: Moments are kept by the microsecond: a bucket that lacks less than that has its start.
HALF_A_MICROSECOND = 5e-7


class Admitted(NamedTuple):
    """What one look let in."""

    runs: int
    #: Whether another look at once may find more.
    more: bool
    #: Seconds until there is something to let in though no run ends before; None when that is not known to come.
    next_in: float | None


class Turn(NamedTuple):
    """What one task may let in now, and in which order: the parameters of `ADMIT` after the domain."""

    task: str
    #: So many runs at most.
    room: int
    #: The key that was served last; the next one is the first now.
    after: str | None
    #: So many keys are looked at.
    most_keys: int
    #: The slots of a key.
    per_key: int | None
    #: Seconds in which one start of a key comes back, and how many may start together.
    every_of_key: float | None
    burst_of_key: int | None
    #: Whether it is the turn of those that wait longest, whatever their priority.
    patient: bool
    #: Seconds in which one start of the task comes back, and that its bucket is from being full.
    every: float | None
    owed: float | None


class Turnstile:
    """What is counted and let in of one domain, by whoever holds its lock."""

    def __init__(self, connection: Connection, domain: str) -> None:
        self._connection = connection
        self._domain = domain

    async def room(self) -> int | None:
        """How many more runs of the domain may be at its workers; None where it has no limit."""
        if await self._connection.fetchrow(statements.DOMAIN, self._domain) is None:
            return None
        await self._connection.execute(statements.GATE_HELD, self._domain)
        counted = await self._connection.fetchrow(statements.DOMAIN, self._domain)
        return None if counted is None else max(0, counted["concurrency"] - counted["admitted"])

    async def look(self) -> Sequence[Row]:
        """The tasks of which runs wait, those first that were served longest ago, with what counts for their limits."""
        return [dict(row) for row in await self._connection.fetch(statements.LOOK, self._domain)]

    async def let_go(self, task: str, most: int) -> int:
        """Let runs of a task go that has no limits any more; returns how many those were."""
        released: int = await self._connection.fetchval(statements.LET_GO, self._domain, task, most)
        return released

    async def let_in(self, turn: Turn) -> tuple[int, bool]:
        """Let runs of a task in; how many, and whether there are keys that were not looked at."""
        row = await self._connection.fetchrow(statements.ADMIT, self._domain, *turn)
        assert row is not None  # noqa: S101 - a statement that counts answers
        return row["admitted"], row["unfinished"]

    async def next_in(self) -> float | None:
        """Seconds until there is something to let in though no run ends before; None when there is nothing."""
        seconds: float | None = await self._connection.fetchval(statements.NEXT, self._domain)
        return seconds


class Admission:
    """Lets runs in, for whoever asks: one at a time in each domain."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def limited(self, domain: str) -> bool:
        """Whether a task of the domain has limits, or the domain itself."""
        return bool(await self._ledger.pool.fetchval(statements.LIMITED, domain))

    async def waiting(self, domain: str, most: int) -> int:
        """How many runs of a domain wait until they are let in; no more than `most` are counted."""
        counted: int = await self._ledger.pool.fetchval(statements.WAITING, domain, most)
        return counted

    async def admit(self, domain: str, *, patient: bool = False) -> Admitted | None:
        """Let in what the limits allow, a bounded number of runs; None while somebody else does that.

        `patient`: of each key those that wait longest, whatever their priority.
        """
        if not await self._ledger.pool.fetchval(statements.ANY_GATED, domain):
            return Admitted(0, more=False, next_in=None)
        async with self._ledger.transaction() as connection:
            if not await connection.fetchval(statements.LOCK, domain):
                return None
            return await let_in(Turnstile(connection, domain), patient=patient)

    async def charge(self, domain: str) -> None:
        """Keep the buckets of what was let in, and waits for a worker, from filling; and forget those that are full."""
        async with self._ledger.transaction() as connection:
            if await connection.fetchval(statements.LOCK, domain):
                await connection.execute(statements.CHARGE, domain)
                await connection.execute(statements.FORGET_FULL, domain, FORGOTTEN)


async def let_in(turnstile: Turnstile, *, patient: bool) -> Admitted:
    """Let in what the limits of a domain and of its tasks allow."""
    room = await turnstile.room()
    tasks = await turnstile.look()
    runs, more = 0, False
    for number, task in enumerate(tasks):
        # What a task leaves of its share is there for those after it.
        share = None if room is None else -(-(room - runs) // (len(tasks) - number))
        admitted, left = await _let_in_of(turnstile, task, share, patient=patient)
        runs, more = runs + admitted, more or left
    if room is not None:
        # A task may have left some of its share to those before it; where there is no room, nobody finds any.
        more = 0 < runs < room or (more and runs < room)
    next_in = await turnstile.next_in() if runs == 0 or not more else None
    return Admitted(runs, more, next_in)


async def _let_in_of(turnstile: Turnstile, task: Row, share: int | None, *, patient: bool) -> tuple[int, bool]:
    """Let runs of one task in; how many, and whether there may be more."""
    if task["limits"] is None:
        released = await turnstile.let_go(task["task"], BATCH)
        return released, released == BATCH
    limits: Row = task["limits"]
    rate, of_key = limits.get("rate"), limits.get("rate_per_key")
    owed = _owed(rate, task)
    free = min(_slots(limits, task), _starts(rate, owed), BATCH if share is None else share)
    room = min(free, BATCH)
    if room <= 0:
        return 0, False
    turn = Turn(
        task=task["task"],
        room=room,
        after=task["last_gate"],
        most_keys=KEYS,
        per_key=limits.get("per_key"),
        every_of_key=every(of_key),
        burst_of_key=of_key and of_key["burst"],
        patient=patient,
        every=every(rate),
        owed=None if rate is None else owed,
    )
    admitted, unfinished = await turnstile.let_in(turn)
    # Keys have a share each: where some have less, or the batch was full, another look finds what they left.
    return admitted, unfinished or 0 < admitted < room or admitted == BATCH


def every(rate: Row | None) -> float | None:
    """The seconds in which one start comes back."""
    return None if rate is None else rate["per_seconds"] / rate["number"]


def _owed(rate: Row | None, task: Row) -> float:
    """Seconds that a task's bucket is from being full, with what was let in and has not started."""
    each = every(rate)
    return 0.0 if each is None else max(0.0, task["debt_seconds"] or 0.0, task["unstarted"] * each)


def _starts(rate: Row | None, owed: float) -> int:
    each = every(rate)
    return BATCH if rate is None or each is None else starts(rate["burst"], owed, each)


def starts(burst: int, owed: float, each: float) -> int:
    """How many starts a bucket has that is so many seconds from being full, and gets one back in `each` seconds."""
    return math.floor(burst - max(0.0, owed - HALF_A_MICROSECOND) / each)


def _slots(limits: Row, task: Row) -> int:
    return limits["concurrency"] - task["admitted"] if "concurrency" in limits else BATCH
