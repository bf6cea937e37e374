"""Servers and a small domain for the tests of the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from carillon.ledger.tables import metadata
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings


@pytest.fixture(scope="module")
def ledger_url(database_url: str) -> str:
    asyncio.run(migrate(database_url, "carillon.ledger.migrations"))
    return database_url


@pytest.fixture(params=["postgres", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def settings(request: pytest.FixtureRequest, ledger_url: str, tmp_path) -> PlatformSettings:
    chosen = PlatformSettings(database_url=SecretStr(ledger_url), storage_url=str(tmp_path), carillon_log_format="json")
    if request.param == "postgres":
        return chosen.model_copy(update={"rabbit_url": None, "rabbit_host": None})
    broker = {
        "rabbit_url": SecretStr(request.getfixturevalue("rabbit_url")),
        "rabbit_queue_prefix": request.getfixturevalue("rabbit_prefix"),
    }
    return chosen.model_copy(update=broker)


@pytest.fixture
async def platform(settings: PlatformSettings) -> AsyncIterator[Platform]:
    async with Platform(settings, name="test") as opened:
        yield opened
        kept = {"alembic_version", "audit", "audit_head"}
        tables = ", ".join(str(table) for name, table in metadata.tables.items() if name.split(".")[1] not in kept)
        async with opened.ledger.transaction() as connection:
            await connection.execute(f"truncate {tables}")
