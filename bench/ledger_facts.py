"""What the ledger says about the runs of the domain `bench`: the proof of what was executed, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.system import Measured

if TYPE_CHECKING:
    import asyncpg

ENDED = """
select count(*) filter (where state = 'completed') as completed,
       count(*) filter (where state <> 'completed') as others,
       extract(epoch from max(finished_at) - min(started_at))::float8 as seconds
from carillon.runs where domain = 'bench'
"""
#: Attempts that did not end their run: there should be none.
ATTEMPTS = "select count(*) from carillon.attempts"
COMPLETED = """
select count(*) as count, extract(epoch from max(finished_at) - min(started_at))::float8 as seconds
from carillon.runs where domain = 'bench' and state = 'completed'
"""
STARTS = """
select id, (result #>> '{}')::bigint as started_ns from carillon.runs where domain = 'bench' and state = 'completed'
"""
#: How long each run of a task took from the ledger's start to the ledger's end, in order.
TOOK = """
select extract(epoch from finished_at - started_at)::float8 * 1000 as took_ms
from carillon.runs where task = $1 and state = 'completed' order by started_at
"""
#: Steps that went well, from the first start of any run to the last end of a workflow.
STEPS = """
select (select count(*) from carillon.steps where kind = 'task' and outcome = 'completed') as steps,
       count(*) filter (where state <> 'completed') as others,
       extract(epoch from max(finished_at) - min(started_at))::float8 as seconds
from carillon.runs where domain = 'bench'
"""
ENDS = """
select id, (extract(epoch from finished_at) * 1e9)::bigint as ended_ns
from carillon.runs where task = $1 and state = 'completed'
"""
WAITING = "select count(*) from carillon.runs_live where domain = 'bench' and state = 'pending' and wake_at is not null"
#: From each event of the domain to the end of the workflow that waited for it.
LATE = """
select extract(epoch from r.finished_at - e.recorded_at)::float8 * 1000 as late_ms
from carillon.events e join carillon.runs r on r.args -> 'number' = e.data -> 'number'
where e.type = 'bench.called.v1' and r.task = 'bench.wait_for_call' and r.state = 'completed'
"""
FORGET = "truncate carillon.runs, carillon.attempts, carillon.events, carillon.steps"
#: One index probe: whether any run has not ended. Counting all of them while the worker works would slow it.
UNENDED = "select exists(select from carillon.runs where domain = 'bench' and finished_at is null)"
QUEUED = "select count(*) from carillon.runs where domain = 'bench' and state = 'queued'"
ENROLLED = "select exists(select from carillon.workers where pid = $1 and stopped_at is null)"


class LedgerFacts:
    """Reads one database; the connection is the benchmark's own."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """The caller opens and closes the connection."""
        self.connection = connection

    async def enrolled(self, pid: int) -> bool:
        """Whether the worker with this process id has begun to work."""
        return bool(await self.connection.fetchval(ENROLLED, pid))

    async def all_ended(self) -> bool:
        """Whether no run is left to execute."""
        return not await self.connection.fetchval(UNENDED)

    async def queued(self) -> int:
        """How many runs wait for a worker."""
        return int(await self.connection.fetchval(QUEUED))

    async def measured(self, count: int) -> Measured:
        """First start to last finish; raises when anything but `count` completed runs of one attempt is there."""
        row = await self.connection.fetchrow(ENDED)
        attempts = await self.connection.fetchval(ATTEMPTS)
        if row is None or (row["completed"], row["others"], attempts) != (count, 0, 0):
            message = f"{count} runs were submitted, but the ledger says {dict(row or {})} and {attempts} more attempts"
            raise BenchError(message)
        return Measured(count=count, seconds=row["seconds"])

    async def steps_measured(self, count: int) -> Measured:
        """The same for the steps of workflows; raises when anything but `count` steps of completed ones is there."""
        row = await self.connection.fetchrow(STEPS)
        attempts = await self.connection.fetchval(ATTEMPTS)
        if row is None or (row["steps"], row["others"], attempts) != (count, 0, 0):
            message = (
                f"{count} steps were to be done, but the ledger says {dict(row or {})} and {attempts} more attempts"
            )
            raise BenchError(message)
        return Measured(count=count, seconds=row["seconds"])

    async def ended_ns(self, task: str) -> dict[str, int]:
        """When each run of a task ended, by the ledger."""
        return {str(row["id"]): row["ended_ns"] for row in await self.connection.fetch(ENDS, task)}

    async def completed(self) -> Measured:
        """First start to last finish of however many completed."""
        row = await self.connection.fetchrow(COMPLETED)
        return Measured(**dict(row or {}))

    async def ended(self) -> int:
        """How many runs ended; only the days are read, whatever waits."""
        return int(await self.connection.fetchval("select count(*) from carillon.runs where ended_on < 'infinity'"))

    async def started_ns(self) -> dict[str, int]:
        """When each run's code began, as it said itself."""
        return {str(row["id"]): row["started_ns"] for row in await self.connection.fetch(STARTS)}

    async def took_ms(self, task: str) -> list[float]:
        """How long each run of a task took, in order; what the two commits cost is in it."""
        return [row["took_ms"] for row in await self.connection.fetch(TOOK, task)]

    async def waiting(self) -> int:
        """How many workflows wait, and hold no worker."""
        return int(await self.connection.fetchval(WAITING))

    async def late_ms(self) -> list[float]:
        """How long after each event the workflow that waited for it had ended."""
        return [row["late_ms"] for row in await self.connection.fetch(LATE)]

    async def forget(self) -> None:
        """Empty the ledger between rounds, so that each round meets the same tables."""
        await self.connection.execute(FORGET)
        await self.connection.execute("vacuum analyze carillon.runs, carillon.attempts")
