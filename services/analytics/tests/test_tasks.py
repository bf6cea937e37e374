"""What analytics hears and does, run whole against a real database."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from analytics.aggregate import Aggregator
from analytics.counts import RememberedCounts, RememberedEvent, RememberedRun
from analytics.events import compute_rollups, refresh_rollups
from analytics.tasks import aggregate_daily_metrics, aggregate_hourly_metrics, tasks
from carillon.contracts import BackupCompleted, RollupRequested, RollupsComputed
from carillon.testing import InProcess

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def domain(aggregator: Aggregator, ledger: RememberedCounts) -> InProcess:
    ledger.runs = [RememberedRun(NOON, "backup.back_up_database", "completed", 3.5)]
    ledger.events = [RememberedEvent(NOON, BackupCompleted.type)]
    return InProcess(tasks, {Aggregator: aggregator})


def proven() -> BackupCompleted:
    return BackupCompleted(
        source="platform",
        backup_id=uuid4(),
        key="backup/platform/1.dump.zst",
        stored_bytes=1,
        plain_bytes=2,
        sha256="0" * 64,
        tables=1,
        rows=1,
        manifest_sha256="0" * 64,
        dump_seconds=1,
        restore_seconds=1,
    )


async def test_a_proven_backup_is_answered_with_the_recent_rollups(domain: InProcess) -> None:
    await domain.run(compute_rollups, event=proven())

    (event,) = domain.said
    assert isinstance(event, RollupsComputed)
    assert event.cause == "backup.completed.v1"
    assert [(row.name, row.count) for row in event.hourly] == [
        ("backup.completed.v1", 1),
        ("backup.back_up_database", 1),
    ]
    assert [row.seconds for row in event.daily] == [0, 3.5]


async def test_a_requested_refresh_says_nothing(domain: InProcess) -> None:
    result = await domain.run(refresh_rollups, event=RollupRequested())

    assert domain.said == []
    assert [part.rows for part in result] == [2, 2]


async def test_the_tasks_of_the_specification_compute_hours_then_days(domain: InProcess) -> None:
    hours = await domain.run(aggregate_hourly_metrics)
    days = await domain.run(aggregate_daily_metrics, since=NOON)

    assert (hours.rows, days.rows, days.buckets) == (2, 2, 8)
