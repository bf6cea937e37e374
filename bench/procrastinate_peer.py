"""Procrastinate as a measured system: jobs and their events in PostgreSQL, which are the proof of what it executed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from bench.errors import BenchError
from bench.peers_environment import PEERS, PYTHON
from bench.process import output_of, running, wait_until
from bench.system import MEASURE_SECONDS, PREFETCH, Measured
from carillon.platform import WINDOW

if TYPE_CHECKING:
    from bench.servers import Servers

UNENDED = "select exists(select from procrastinate_jobs where status in ('todo', 'doing'))"
ENDED = """
select (select count(*) from procrastinate_jobs where status = 'succeeded' and attempts = 1) as succeeded,
       extract(epoch from max(at) filter (where type = 'succeeded') - min(at) filter (where type = 'started'))::float8
           as seconds
from procrastinate_events
"""


class Procrastinate:
    """One asynchronous worker with as many jobs at once as Carillon's."""

    name = "Procrastinate"
    largest = WINDOW

    def __init__(self, servers: Servers) -> None:
        """Its tables are in a private database."""
        self._url = servers.database("procrastinate")
        self._log = Path(tempfile.gettempdir()) / f"{servers.name}.procrastinate.log"

    async def prepare(self) -> None:
        """Make its tables."""
        await self._run("schema")

    async def measure(self, count: int) -> Measured:
        """Defer, start the worker, and read from its events when it did what."""
        await self._run("preload", str(count))
        connection = await asyncpg.connect(self._url)
        try:

            async def all_ended() -> bool:
                return not await connection.fetchval(UNENDED)

            argv = [str(PYTHON), "procrastinate_app.py", "work", str(PREFETCH)]
            async with running(*argv, env=self._env, cwd=PEERS, log=self._log) as worker:
                await wait_until(all_ended, what=self.name, limit=MEASURE_SECONDS, process=worker, log=self._log)
            row = await connection.fetchrow(ENDED)
            await connection.execute("truncate procrastinate_jobs, procrastinate_events cascade")
        finally:
            await connection.close()
        if row is None or row["succeeded"] != count:
            message = f"{count} jobs were deferred, but the tables of Procrastinate say {dict(row or {})}"
            raise BenchError(message)
        self._log.unlink(missing_ok=True)
        return Measured(count=count, seconds=row["seconds"])

    @property
    def _env(self) -> dict[str, str]:
        return {"BENCH_DATABASE_URL": self._url}

    async def _run(self, *arguments: str) -> None:
        await output_of(str(PYTHON), "procrastinate_app.py", *arguments, env=self._env, cwd=PEERS)
