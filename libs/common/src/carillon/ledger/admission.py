"""Admission: letting runs in that wait for limits of their task or domain, counted in the ledger (decision 0013)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from carillon.ledger.statements import limits as statements

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

#: Runs of one task let in, and keys looked at, by one statement.
BATCH = 500
KEYS = 1_000
#: Full buckets forgotten at once.
FORGOTTEN = 1_000


class Admitted(NamedTuple):
    """What one look let in."""

    runs: int
    #: Whether another look at once may find more.
    more: bool
    #: Seconds until there is something to let in though no run ends before; None when that is not known to come.
    next_in: float | None


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
            room = await self._room_of_domain(connection, domain)
            tasks = [dict(row) for row in await connection.fetch(statements.LOOK, domain)]
            runs, more = 0, False
            for number, task in enumerate(tasks):
                # What a task leaves of its share is there for those after it.
                share = None if room is None else -(-(room - runs) // (len(tasks) - number))
                admitted, left = await self._admit(connection, domain, task, share, patient=patient)
                runs, more = runs + admitted, more or left
            if room is not None:
                # A task may have left some of its share to those before it; where there is no room, nobody finds any.
                more = 0 < runs < room or (more and runs < room)
            next_in = await connection.fetchval(statements.NEXT, domain) if runs == 0 or not more else None
        return Admitted(runs, more, next_in)

    async def charge(self, domain: str) -> None:
        """Keep the buckets of what was let in, and waits for a worker, from filling; and forget those that are full."""
        async with self._ledger.transaction() as connection:
            if await connection.fetchval(statements.LOCK, domain):
                await connection.execute(statements.CHARGE, domain)
                await connection.execute(statements.FORGET_FULL, domain, FORGOTTEN)

    async def _room_of_domain(self, connection: Connection, domain: str) -> int | None:
        if await connection.fetchrow(statements.DOMAIN, domain) is None:
            return None
        await connection.execute(statements.GATE_HELD, domain)
        counted = await connection.fetchrow(statements.DOMAIN, domain)
        return None if counted is None else max(0, counted["concurrency"] - counted["admitted"])

    async def _admit(
        self, connection: Connection, domain: str, task: Mapping[str, Any], share: int | None, *, patient: bool
    ) -> tuple[int, bool]:
        """Let runs of one task in; how many, and whether there may be more."""
        if task["limits"] is None:
            released = await connection.fetchval(statements.LET_GO, domain, task["task"], BATCH)
            return released, released == BATCH
        limits: Mapping[str, Any] = task["limits"]
        rate, of_key = limits.get("rate"), limits.get("rate_per_key")
        owed = _owed(rate, task)
        free = min(_slots(limits, task), _starts(rate, owed), BATCH if share is None else share)
        room = min(free, BATCH)
        if room <= 0:
            return 0, False
        row = await connection.fetchrow(
            statements.ADMIT,
            domain,
            task["task"],
            room,
            task["last_gate"],
            KEYS,
            limits.get("per_key"),
            _every(of_key),
            of_key and of_key["burst"],
            patient,
            _every(rate),
            None if rate is None else owed,
        )
        assert row is not None  # noqa: S101 - a statement that counts answers
        admitted: int = row["admitted"]
        # Keys have a share each: where some have less, or the batch was full, another look finds what they left.
        return admitted, row["unfinished"] or 0 < admitted < room or admitted == BATCH


def _every(rate: Mapping[str, Any] | None) -> float | None:
    """The seconds in which one start comes back."""
    return None if rate is None else rate["per_seconds"] / rate["number"]


def _owed(rate: Mapping[str, Any] | None, task: Mapping[str, Any]) -> float:
    """Seconds that a task's bucket is from being full, with what was let in and has not started."""
    every = _every(rate)
    return 0.0 if every is None else max(0.0, task["debt_seconds"] or 0.0, task["unstarted"] * every)


def _starts(rate: Mapping[str, Any] | None, owed: float) -> int:
    every = _every(rate)
    return BATCH if rate is None or every is None else int(rate["burst"] - owed / every + 1e-6)


def _slots(limits: Mapping[str, Any], task: Mapping[str, Any]) -> int:
    return limits["concurrency"] - task["admitted"] if "concurrency" in limits else BATCH
