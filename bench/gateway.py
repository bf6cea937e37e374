"""A real gateway process, as `carillon serve gateway` runs it, and a client of it in a process of its own."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.http_client import Answered
from bench.process import output_of, running, wait_until
from bench.processor import seconds_of
from bench.system import MEASURE_SECONDS
from carillon.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.ours import Carillon

ROOT = Path(__file__).parent.parent
START_SECONDS = 30.0


@dataclass(frozen=True)
class Asked:
    """What a client saw, and what share of one core the gateway took meanwhile."""

    answered: Answered
    gateway_share: float

    @property
    def client_share(self) -> float:
        """What share of one core the client took."""
        return self.answered.client_cpu_seconds / self.answered.seconds


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens."""

    pid: int
    port: int
    key: str

    async def ask(self, path: str, body: object, *, connections: int, warm_up: int, count: int) -> Asked:
        """Send the same request `warm_up` times on each connection, then `count` times in all, which are measured."""
        argv = [
            sys.executable,
            "-m",
            "bench.http_client",
            str(self.port),
            path,
            *map(str, (connections, warm_up, count)),
        ]
        given = json.dumps({"key": self.key, "body": json.dumps(body)})
        before = seconds_of(self.pid)
        answered = Answered(**json.loads(await output_of(*argv, cwd=ROOT, given=given, limit=MEASURE_SECONDS)))
        share = (seconds_of(self.pid) - before) * answered.count / (answered.count + warm_up * connections)
        return Asked(answered, share / answered.seconds)


@asynccontextmanager
async def gateway(ours: Carillon) -> AsyncIterator[Gateway]:
    """A gateway of the same platform, with everything on, and a key of its own."""
    await migrate(ours.database_url, "carillon.ledger.migrations", "gateway.migrations")
    with tempfile.TemporaryDirectory(prefix="carillon-bench-") as folder:
        key_file, log, port = Path(folder) / "key", Path(folder) / "log", _free_port()
        env = ours.env | {"GATEWAY_PORT": str(port), "GATEWAY_KEY_FILE": str(key_file), "STORAGE_URL": folder}
        argv = [sys.executable, "-m", "carillon.cli.serve", "gateway"]

        async def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        async with running(*argv, env=env, cwd=ROOT, log=log) as process:
            await wait_until(listens, what="the gateway", limit=START_SECONDS, process=process, log=log)
            yield Gateway(process.pid, port, key_file.read_text().strip())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
