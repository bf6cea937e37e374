"""Real processes of a small domain, on both transports."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import SecretStr

from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually

HERE = Path(__file__).parent
TABLES = "runs, attempts, events, tasks, event_types, domains, workers, schedules, fires, dead_letters"


@pytest.fixture(scope="session")
def workshop() -> ModuleType:
    """The domain as a module, for its declared tasks."""
    spec = importlib.util.spec_from_file_location("workshop", HERE / "workshop.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["workshop"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ledger_url(database_url: str) -> str:
    asyncio.run(migrate(database_url, "carillon.ledger.migrations"))
    return database_url


@pytest.fixture(params=["postgres", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def settings(request: pytest.FixtureRequest, ledger_url: str, tmp_path: Path) -> PlatformSettings:
    chosen = PlatformSettings(database_url=SecretStr(ledger_url), storage_url=str(tmp_path))
    if request.param == "postgres":
        return chosen.model_copy(update={"rabbit_url": None, "rabbit_host": None})
    broker = {
        "rabbit_url": SecretStr(request.getfixturevalue("rabbit_url")),
        "rabbit_queue_prefix": request.getfixturevalue("rabbit_prefix"),
    }
    return chosen.model_copy(update=broker)


@pytest.fixture
async def platform(settings: PlatformSettings, workshop: ModuleType) -> AsyncIterator[Platform]:
    async with Platform(settings, name="test") as opened:
        async with opened.ledger.transaction() as connection:
            await connection.execute(workshop.TABLES)
        yield opened
        async with opened.ledger.transaction() as connection:
            await connection.execute(
                f"truncate effects, entries, {', '.join(f'carillon.{t}' for t in TABLES.split(', '))}"
            )


class Processes:
    """Starts processes of the workshop, and leaves none behind."""

    def __init__(self, settings: PlatformSettings, platform: Platform, folder: Path) -> None:
        self._platform = platform
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(("RABBIT_", "TASK_"))}
        self._env["DATABASE_URL"] = settings.database_url.get_secret_value()
        self._env["STORAGE_URL"] = settings.storage_url
        self._env["CARILLON_LOG_FORMAT"] = "json"
        if (url := settings.amqp_url()) is not None:
            self._env |= {"RABBIT_URL": url, "RABBIT_QUEUE_PREFIX": settings.rabbit_queue_prefix}

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start the Python of this environment with these arguments."""
        log = self._log(len(self._started))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=HERE,
                env=self._env | variables,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    async def worker(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until it is enrolled."""
        process = self.start("workshop.py", **variables)

        async def enrolled() -> bool:
            assert process.poll() is None, self.said(process)
            return any(row["pid"] == process.pid for row in await self._platform.history.live_workers())

        await eventually(enrolled, within=30)
        return process

    async def end(self, process: subprocess.Popen[bytes], *, within: float = 30) -> int:
        """Wait until a process has ended, and return how."""

        async def ended() -> bool:
            return process.poll() is not None

        await eventually(ended, within=within)
        return process.returncode

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """What a process wrote."""
        return self._log(self._started.index(process)).read_text()

    def stop(self) -> None:
        """Kill what is left, with the children it made."""
        for process in self._started:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                process.wait(10)

    def _log(self, number: int) -> Path:
        return self._folder / f"process-{number}.log"


@pytest.fixture
def processes(settings: PlatformSettings, platform: Platform, tmp_path: Path) -> Iterator[Any]:
    made = Processes(settings, platform, tmp_path)
    yield made
    made.stop()
