"""A migrated database, a clock that is set by hand, and a small ledger to count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from analytics.aggregate import Aggregator
from analytics.counts import RememberedCounts
from analytics.models import metadata
from analytics.store import Store
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    await migrate(database_url, "analytics.migrations")
    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.begin() as connection:
        for table in metadata.sorted_tables:
            await connection.execute(table.delete())
    yield engine
    await engine.dispose()


@dataclass
class Clock:
    """Tells the time it was set to."""

    now: datetime = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger() -> RememberedCounts:
    return RememberedCounts()


@pytest.fixture
def store(engine: AsyncEngine) -> Store:
    return Store(engine)


@pytest.fixture
def aggregator(ledger: RememberedCounts, store: Store, clock: Clock) -> Aggregator:
    return Aggregator(ledger, store, late=timedelta(hours=48), retention=timedelta(hours=168), clock=clock)
