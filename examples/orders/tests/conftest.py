"""The store and the bank, in PostgreSQL and in memory, and what holds of both."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url
from orders.models import metadata
from orders.remembered import RememberedBank, RememberedStore
from orders.store import Store, TableBank

BOTH = ["postgres", "memory"]


@pytest.fixture
async def engine(database_url):
    await migrate(database_url, "orders.migrations")
    engine = create_async_engine(sqlalchemy_url(database_url), pool_size=8)
    async with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(table.delete())
    yield engine
    await engine.dispose()


@pytest.fixture(params=BOTH)
def store(request):
    return RememberedStore() if request.param == "memory" else Store(request.getfixturevalue("engine"))


@pytest.fixture(params=BOTH)
def bank(request):
    return RememberedBank() if request.param == "memory" else TableBank(request.getfixturevalue("engine"))
