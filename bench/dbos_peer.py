"""DBOS as measured workflows: its tables in PostgreSQL are the proof of what it executed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from bench.errors import BenchError
from bench.peers_environment import PEERS, PYTHON
from bench.process import output_of, running, wait_until
from bench.system import FAN_OUT, LARGEST, MEASURE_SECONDS, Measured

if TYPE_CHECKING:
    from bench.servers import Servers

UNENDED = "select exists(select from dbos.workflow_status where completed_at is null)"
ENDED = """
select (select count(*) from dbos.workflow_status where status <> 'SUCCESS') as others,
       (select max(completed_at) from dbos.workflow_status) as last_ms,
       count(*) filter (where error is null) as steps, min(started_at_epoch_ms) as first_ms
from dbos.operation_outputs
"""
FORGET = "truncate dbos.workflow_status, dbos.operation_outputs cascade"


class Dbos:
    """One process that takes workflows from a queue of DBOS."""

    name = "DBOS"

    def __init__(self, servers: Servers, workflow: str) -> None:
        """`workflow` is `chain` or `fan_out`; the tables are in a private database."""
        self.largest = FAN_OUT if workflow == "fan_out" else LARGEST
        self._url = servers.database("dbos")
        self._env = {"BENCH_DATABASE_URL": self._url}
        self._log = Path(tempfile.gettempdir()) / f"{servers.name}.dbos.log"
        self._workflow = workflow

    async def prepare(self) -> None:
        """Make its tables and its queue."""
        await self._run("schema")

    async def measure(self, count: int) -> Measured:
        """Queue workflows of some `count` steps in all, start the worker, and read from its tables when it did what."""
        queued = int(await self._run(self._workflow, str(count)))
        connection = await asyncpg.connect(self._url)
        try:

            async def all_ended() -> bool:
                return not await connection.fetchval(UNENDED)

            argv = [str(PYTHON), "dbos_app.py", "work"]
            async with running(*argv, env=self._env, cwd=PEERS, log=self._log) as worker:
                await wait_until(all_ended, what=self.name, limit=MEASURE_SECONDS, process=worker, log=self._log)
            measured = await done(connection, queued)
            await connection.execute(FORGET)
        finally:
            await connection.close()
        self._log.unlink(missing_ok=True)
        return measured

    async def alone_ms(self, count: int) -> list[float]:
        """How long each of `count` chains takes, one after the other, within the process that starts them."""
        took: list[float] = json.loads(await self._run("alone", str(count)))
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(FORGET)
        finally:
            await connection.close()
        return took

    async def _run(self, *arguments: str) -> str:
        return await output_of(str(PYTHON), "dbos_app.py", *arguments, env=self._env, cwd=PEERS)


async def done(connection: asyncpg.Connection[asyncpg.Record], count: int) -> Measured:
    """First start of a step to last end of a workflow; raises when anything but `count` steps that went well is there.

    DBOS keeps milliseconds, which are fine enough for seconds of work.
    """
    row = await connection.fetchrow(ENDED)
    if row is None or (row["steps"], row["others"]) != (count, 0):
        message = f"{count} steps were to be done, but the tables of DBOS say {dict(row or {})}"
        raise BenchError(message)
    return Measured(count=count, seconds=(row["last_ms"] - row["first_ms"]) / 1_000)
