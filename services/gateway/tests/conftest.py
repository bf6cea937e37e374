"""A real gateway in a process of its own, and a domain of bells to ring through it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import httpx2
import pytest

from carillon import Retry, Run, Service, Tasks, Unique
from carillon.contracts import Event
from carillon.errors import PermanentError
from carillon.migrations import migrate
from carillon.settings import PlatformSettings
from carillon.testing.blocking import wait_for

GATEWAY = "import uvloop; from gateway.app import service; uvloop.run(service().run())"

tasks = Tasks("bells")


class RingRequested(Event):
    """Said by whoever wants to hear a bell."""

    type: ClassVar[str] = "bells.ring_requested.v1"
    subject_field: ClassVar[str] = "bell"

    bell: str
    times: int = 1


class BellRung(Event):
    """Said by bells once a bell rang."""

    type: ClassVar[str] = "bells.bell_rung.v1"

    times: int


@tasks.task(default=True)
async def ring(times: int, loud: bool = False, words: dict[str, Any] | None = None) -> BellRung:
    """Ring a bell.

    Safe to run twice: it only counts.
    """
    return BellRung(times=times)


@tasks.task(retry=Retry(attempts=1))
async def crack(bell: str) -> None:
    """Break a bell.

    Safe to run twice: it never works.
    """
    message = f"the bell {bell} cracked"
    raise PermanentError(message)


@tasks.task(unique=Unique(until="started"))
async def toll(hour: int) -> int:
    """Toll the hour, once.

    Safe to run twice: it only counts.
    """
    return hour


@tasks.hears(RingRequested)
async def ring_on_request(event: RingRequested, *, run: Run) -> BellRung:
    """Ring because somebody asked.

    Safe to hear twice: it only counts.
    """
    return BellRung(times=event.times)


@tasks.hears(BellRung)
async def write_down(event: BellRung) -> int:
    """Write down a ring.

    Safe to hear twice: it only counts.
    """
    return event.times


@dataclass
class Gateway:
    """A running gateway, as somebody outside sees it."""

    url: str
    port: int
    key: str
    database_url: str
    storage: Path
    process: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        """Connect."""
        self.http = httpx2.Client(base_url=self.url, timeout=15)

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        sent = {"Content-Type": "application/json", **self.auth, **headers}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(path, content=content, headers=sent)

    def raw(self, request: bytes, seconds: float = 10) -> bytes:
        """What comes back for bytes that no client would send."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(request)
            received = b""
            while b"\r\n\r\n" not in received:
                chunk = connection.recv(65536)
                if not chunk:
                    break
                received += chunk
            return received

    def stop(self) -> None:
        """Ask it to end, and wait until it did."""
        self.process.terminate()
        assert self.process.wait(20) == 0

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async def read() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return await connection.fetch(query, *arguments)
            finally:
                await connection.close()

        return wait_for(read())

    def recorded(self) -> tuple[int, int]:
        """How many runs and events there are, once nothing is due any more."""
        due = "select 1 from carillon.runs where state in ('queued', 'running', 'retrying') and run_at <= now()"
        deadline = time.monotonic() + 40
        while self.fetch(due):
            assert time.monotonic() < deadline, "the bells do not come to rest"
            time.sleep(0.02)
        row = self.fetch("select (select count(*) from carillon.runs), (select count(*) from carillon.events)")[0]
        return row[0], row[1]

    def ended(self, run: str) -> dict[str, Any]:
        """The details of a run, once it ended."""
        return self.until(f"/api/v1/runs/{run}", lambda found: found["finished_at"] is not None)

    def until(self, path: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 40) -> dict[str, Any]:
        """What a path answers, once that holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = self.http.get(path).json()
            if holds(answer):
                return answer
            time.sleep(0.02)
        message = f"{path} still answers {answer}"
        raise AssertionError(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def settled_url(database_url: str) -> str:
    """The database of a module, with the tables of the ledger and of the gateway."""
    wait_for(migrate(database_url, "carillon.ledger.migrations", "gateway.migrations"))
    return database_url


@pytest.fixture(scope="module")
def bells(settled_url: str) -> Iterator[None]:
    """The domain of bells at work."""
    # Tests make runs of long ago, which the worker would drop while they look at them.
    kept = {"task_tracking_retention_hours": 876_600}
    with working(PlatformSettings(database_url=settled_url, rabbit_url=None, rabbit_host=None, **kept)):
        yield


@pytest.fixture(scope="module")
def at_work() -> Callable[..., AbstractContextManager[None]]:
    """Lets the bells work with settings of a test's own, or another domain."""
    return working


@contextmanager
def working(settings: PlatformSettings, name: str = "bells", tasks: Tasks = tasks) -> Iterator[None]:
    """The domain of bells, or another one, in a thread of its own."""
    service = Service(name=name, settings=settings, tasks=tasks, concurrency=2)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(service.run(stop)), name=name)
    thread.start()
    yield
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    loop.close()


@pytest.fixture(scope="module")
def start(settled_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways with settings of their own."""
    started: list[subprocess.Popen[bytes]] = []
    clients: list[httpx2.Client] = []

    def begin(before: str = "", **settings: str) -> Gateway:
        folder, port = tmp_path_factory.mktemp("gateway"), free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBIT_")},
            "DATABASE_URL": settled_url,
            "STORAGE_URL": str(folder / "storage"),
            "GATEWAY_PORT": str(port),
            "GATEWAY_KEY_FILE": str(folder / "key"),
            "TASK_TRACKING_RETENTION_HOURS": "876600",
            **settings,
        }
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-c", before + GATEWAY]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        url = f"http://127.0.0.1:{port}"
        _await(url, started[-1], folder / "log")
        key = (folder / "key").read_text().strip() if (folder / "key").exists() else ""
        gateway = Gateway(url, port, key, settled_url, folder / "storage", started[-1])
        clients.append(gateway.http)
        return gateway

    yield begin
    for client in clients:
        client.close()
    for process in started:
        process.terminate()
    for process in started:
        assert process.wait(20) == 0


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"{url}/health/live").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.02)
    message = f"the gateway did not start:\n{log.read_text()}"
    raise AssertionError(message)


@pytest.fixture(scope="module")
def gateway(start: Callable[..., Gateway], bells: None) -> Gateway:
    """A gateway with short deadlines, once the bells are in its catalogue."""
    gateway = start(GATEWAY_BODY_TIMEOUT_SECONDS="1")
    gateway.until("/api/v1/tasks", lambda answer: any(task["name"] == "bells.toll" for task in answer["tasks"]))
    return gateway
