"""Servers and a small domain for the tests of the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr

from carillon.ledger.tables import metadata
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing.memory import MemoryPlatform
from carillon.worker.receiver import Receiver

#: Where the twin's settings point: nobody listens there, so that nothing of it can be real.
NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real(why): of what the in-memory twin does not do")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of a platform is run on both transports, and on the twin, which is not told of its being one."""
    twin = [] if metafunc.definition.get_closest_marker("real") else ["memory"]
    if "ledger_kind" in metafunc.fixturenames:
        # Of the ledger alone.
        metafunc.parametrize("ledger_kind", ["postgres", *twin])
    chosen = any("transport" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if chosen or "transport" not in metafunc.fixturenames:
        return
    metafunc.parametrize("transport", ["postgres", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), *twin])


@pytest.fixture(scope="module")
def ledger_url(database_url: str) -> str:
    asyncio.run(migrate(database_url, "carillon.ledger.migrations"))
    return database_url


@pytest.fixture
def settings(request: pytest.FixtureRequest, transport: str, tmp_path) -> PlatformSettings:
    url = NOWHERE if transport == "memory" else request.getfixturevalue("ledger_url")
    chosen = PlatformSettings(database_url=SecretStr(url), storage_url=str(tmp_path), carillon_log_format="json")
    if transport != "rabbitmq":
        return chosen.model_copy(update={"rabbit_url": None, "rabbit_host": None})
    broker = {
        "rabbit_url": SecretStr(request.getfixturevalue("rabbit_url")),
        "rabbit_queue_prefix": request.getfixturevalue("rabbit_prefix"),
    }
    return chosen.model_copy(update=broker)


@pytest.fixture
async def platform(settings: PlatformSettings) -> AsyncIterator[Platform]:
    if settings.database_url.get_secret_value() == NOWHERE:
        async with MemoryPlatform(settings, name="test") as twin:
            yield twin
        return
    async with Platform(settings, name="test") as opened:
        yield opened
        kept = {"alembic_version", "audit", "audit_head"}
        tables = ", ".join(str(table) for name, table in metadata.tables.items() if name.split(".")[1] not in kept)
        async with opened.ledger.transaction() as connection:
            await connection.execute(f"truncate {tables}")


@pytest.fixture
def opens(platform: Platform) -> Callable[..., Platform]:
    """What another process would open the same platform with."""
    return platform.beside if isinstance(platform, MemoryPlatform) else Platform


@pytest.fixture
def receivers(monkeypatch: pytest.MonkeyPatch) -> list[Receiver]:
    """Every receiver that is made, for what asks it to cancel."""
    made: list[Receiver] = []
    build = Receiver.__init__

    def remember(self, *args, **options) -> None:
        build(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Receiver, "__init__", remember)
    return made
