"""Rollups to report on, and a place to keep what was rendered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import TYPE_CHECKING, Protocol

import pytest
from obstore.store import MemoryStore
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.contracts import RollupRow, RollupsComputed
from carillon.migrations import migrate
from reports.days import RememberedDays
from reports.models import metadata
from reports.operations import OperationsReports
from reports.renderer import Renderer
from reports.shelf import Shelf
from reports.store import ReportRegister

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


NOON = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
ORDINARY = ("backup.back_up_database", "analytics.compute_rollups", "notifications.deliver")
STATES = ("completed", "failed", "completed", "cancelled", "completed", "partial")


class MakeRollups(Protocol):
    """What the fixture `rollups` gives."""

    def __call__(self, *, names: Sequence[str] = ORDINARY, rows: int = 60) -> RollupsComputed: ...


@pytest.fixture(scope="session")
def rollups() -> MakeRollups:
    """Makes rollups at noon: so many rows of each grain, over these names."""

    def make(*, names: Sequence[str] = ORDINARY, rows: int = 60) -> RollupsComputed:
        hour, day = NOON.replace(minute=0), NOON.replace(hour=0, minute=0)
        hours = [hour - timedelta(hours=back) for back in range(24)]
        days = [day - timedelta(days=back) for back in range(14)]
        return RollupsComputed(
            watermark=NOON,
            cause="backup.completed.v1",
            hourly=[row("hour", at, name, number) for number, at, name in series(hours, names, rows)],
            daily=[row("day", at, name, number) for number, at, name in series(days, names, rows)],
        )

    return make


def series(starts: Sequence[datetime], names: Sequence[str], rows: int) -> list[tuple[int, datetime, str]]:
    return list(islice(zip(range(rows), cycle(starts), cycle([*names]), strict=False), rows))


def row(grain: str, bucket: datetime, name: str, number: int) -> RollupRow:
    if number % 5 == 4:
        return RollupRow(grain=grain, bucket=bucket, kind="event", name="backup.completed.v1", state="said", count=2)
    state = STATES[number % len(STATES)]
    seconds = 0.1234567 * (number + 1)
    return RollupRow(
        grain=grain, bucket=bucket, kind="run", name=name, state=state, count=number % 11 + 1, seconds=seconds
    )


@pytest.fixture
def storage() -> MemoryStore:
    """Storage that nobody else sees."""
    return MemoryStore()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database that has the schema `reports`."""
    await migrate(database_url, "reports.migrations")
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(table.delete())
    yield engine
    await engine.dispose()


@pytest.fixture
def register(engine: AsyncEngine) -> ReportRegister:
    """The register on that database."""
    return ReportRegister(engine)


@pytest.fixture
def reports(storage: MemoryStore, register: ReportRegister) -> OperationsReports:
    """The whole domain on real storage, a real database and the real renderer."""
    return OperationsReports(Renderer(timedelta(seconds=60)), Shelf(storage), register, RememberedDays())
