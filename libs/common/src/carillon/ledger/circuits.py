"""Circuit breakers as rows: read, and changed by one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from carillon.policies.circuit import Circuit, CircuitState, Seen, Step

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection, Ledger

#: The columns are the fields.
COLUMNS = tuple(field.name for field in fields(Circuit))

READ = f"select {', '.join(COLUMNS)}, clock_timestamp() as now from carillon.breakers where name = $1"
MAKE = "insert into carillon.breakers (name) values ($1) on conflict do nothing"
#: The clock is read when the lock is had: a transaction's own moment may lie before the change of another.
LOCK = """
with locked as materialized (select * from carillon.breakers where name = $1 for update)
select *, clock_timestamp() as now from locked
"""
WRITE = f"""
update carillon.breakers set {", ".join(f"{column} = ${place}" for place, column in enumerate(COLUMNS, 2))}
where name = $1
"""


#: Says that a breaker changed, as part of the transaction that changed it; what comes back is to be done after that.
Announce = Callable[[Seen, "Connection | None"], Awaitable[Callable[[], Awaitable[None]]]]


class Circuits:
    """The breakers of all workers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def read(self, name: str) -> Seen | None:
        """A breaker as it is; None for one that never failed."""
        row = await self._ledger.pool.fetchrow(READ, name)
        return None if row is None else _seen(row)

    async def change(self, name: str, step: Step, announce: Announce) -> Seen:
        """Let a breaker take a step, and say so where its state is another then; returns what it is."""
        afterwards = None
        async with self._ledger.transaction() as connection:
            await connection.execute(MAKE, name)
            row = await connection.fetchrow(LOCK, name)
            assert row is not None  # noqa: S101 - it was made, and is never deleted
            before, now = _seen(row)
            after = Seen(step(before, now), now)
            if after.circuit != before:
                await connection.execute(WRITE, name, *(getattr(after.circuit, column) for column in COLUMNS))
            if after.circuit.state is not before.state:
                afterwards = await announce(after, connection)
        if afterwards is not None:
            await afterwards()
        return after


def _seen(row: Any) -> Seen:
    given = {column: row[column] for column in COLUMNS}
    given |= {"state": CircuitState(given["state"]), "failed_at": tuple(given["failed_at"])}
    return Seen(Circuit(**given), row["now"])
