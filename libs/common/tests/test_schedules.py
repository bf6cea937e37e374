"""Schedules as rows: what a service ships, what people pause, and what of that the audit trail tells."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from carillon.contracts import BackupRequested
from carillon.jobs import pause_job, resume_job
from carillon.ledger.audit import Actor, AuditSearch
from carillon.ledger.schedules import Schedule
from carillon.platform import Platform
from carillon.settings import PlatformSettings

NIGHTLY = Schedule(name="nightly", event=BackupRequested(source="platform"), cron="0 2 * * *")
OFTEN = Schedule(name="often", event=BackupRequested(source="platform"), every=timedelta(minutes=5))
ADA = Actor("ada", "a test")


@pytest.fixture
async def platform(ledger_url: str) -> AsyncIterator[Platform]:
    async with Platform(PlatformSettings(database_url=SecretStr(ledger_url)), name="test") as opened:
        yield opened
        async with opened.ledger.transaction() as connection:
            await connection.execute("truncate carillon.schedules, carillon.fires")


@pytest.fixture
async def told(platform: Platform):
    """What the trail tells since the test began, oldest first."""
    newest = await platform.audit.page(AuditSearch(limit=1))
    since = newest[0]["seq"] if newest else 0

    async def read() -> list[dict[str, object]]:
        return [dict(row) for row in reversed(await platform.audit.page(AuditSearch())) if row["seq"] > since]

    return read


async def test_what_a_service_ships_is_told_once_however_often_it_starts(platform: Platform, told) -> None:
    for _ in range(3):
        await platform.schedules.ship("backup", [NIGHTLY, OFTEN])

    entries = await told()
    assert [(entry["actor"], entry["action"], entry["subject"]) for entry in entries] == [
        ("backup", "schedule.created", "nightly"),
        ("backup", "schedule.created", "often"),
    ]
    assert entries[0]["details"] == {
        "cron": "0 2 * * *",
        "interval_seconds": None,
        "timezone": "UTC",
        "event_type": "backup.requested.v1",
        "event_data": {"source": "platform"},
    }


async def test_a_schedule_that_is_shipped_otherwise_is_changed_and_a_restart_changes_nothing(platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])
    await platform.schedules.pause("nightly", ADA)
    later = replace(NIGHTLY, cron="0 3 * * *")

    for _ in range(2):
        await platform.schedules.ship("backup", [later])

    row = await platform.schedules.get("nightly")
    *_, changed = entries = await told()
    assert [entry["action"] for entry in entries] == ["schedule.created", "schedule.paused", "schedule.changed"]
    assert changed["details"] == {"before": NIGHTLY.columns(), "after": later.columns()}
    assert (row["cron"], row["paused_by"], row["revision"]) == ("0 3 * * *", "ada", 3)


async def test_what_people_made_of_a_schedule_outlasts_a_restart(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])
    async with platform.ledger.transaction() as connection:
        await connection.execute("update carillon.schedules set cron = '0 4 * * *', revision = revision + 1")

    await platform.schedules.ship("backup", [NIGHTLY])

    assert (await platform.schedules.get("nightly"))["cron"] == "0 4 * * *"
    assert len(await told()) == 1


async def test_a_schedule_that_is_no_longer_shipped_is_removed_and_no_other(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY, OFTEN])
    await platform.schedules.ship("reports", [replace(NIGHTLY, name="weekly")])
    async with platform.ledger.transaction() as connection:
        await connection.execute(
            """insert into carillon.schedules (name, cron, event_type, event_data, owner)
            values ('by-hand', '0 4 * * *', 'backup.requested.v1', '{}', 'backup')"""
        )

    for _ in range(2):
        await platform.schedules.ship("backup", [OFTEN])

    *_, removed = entries = await told()
    assert (len(entries), removed["action"], removed["subject"]) == (4, "schedule.removed", "nightly")
    assert removed["details"] == NIGHTLY.columns()
    assert [row["name"] for row in await platform.schedules.all()] == ["by-hand", "often", "weekly"]


async def test_a_schedule_from_before_anyone_noted_what_was_shipped_is_left_as_it_is(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [replace(NIGHTLY, cron="0 5 * * *")])
    async with platform.ledger.transaction() as connection:
        await connection.execute("update carillon.schedules set shipped = null")

    await platform.schedules.ship("backup", [NIGHTLY])
    first = await platform.schedules.get("nightly")
    await platform.schedules.ship("backup", [replace(NIGHTLY, cron="0 6 * * *")])

    assert (first["cron"], (await platform.schedules.get("nightly"))["cron"]) == ("0 5 * * *", "0 6 * * *")
    assert [entry["action"] for entry in await told()] == ["schedule.created", "schedule.changed"]


async def test_a_schedule_of_another_service_is_not_taken_over(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])

    await platform.schedules.ship("reports", [replace(NIGHTLY, cron="0 3 * * *")])

    assert (await platform.schedules.get("nightly"))["cron"] == "0 2 * * *"
    assert len(await told()) == 1


async def test_services_that_ship_at_once_in_any_order_do_not_stop_each_other(platform: Platform, told) -> None:
    many = [Schedule(name=f"s{n}", event=BackupRequested(source="platform"), cron="0 2 * * *") for n in range(10)]

    await asyncio.gather(*(platform.schedules.ship("backup", many[::step]) for step in (1, -1, 1, -1)))

    assert sorted(entry["subject"] for entry in await told()) == sorted(schedule.name for schedule in many)


async def test_pausing_and_resuming_are_told_once_with_who_and_why(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])

    for _ in range(2):
        assert await platform.schedules.pause("nightly", ADA, "the disk is full")
    for _ in range(2):
        assert await platform.schedules.resume("nightly", ADA)
    assert not await platform.schedules.pause("never", ADA)
    assert not await platform.schedules.resume("never", ADA)

    _, *entries = await told()
    assert [(entry["actor"], entry["origin"], entry["action"], entry["reason"]) for entry in entries] == [
        ("ada", "a test", "schedule.paused", "the disk is full"),
        ("ada", "a test", "schedule.resumed", None),
    ]


async def test_many_who_pause_at_once_are_one_pause(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])

    answers = await asyncio.gather(*(platform.schedules.pause("nightly", Actor(f"p{n}", "x")) for n in range(6)))

    _, paused = await told()
    assert answers == [True] * 6
    assert (await platform.schedules.get("nightly"))["paused_by"] == paused["actor"]


async def test_a_job_that_is_paused_from_python_names_account_and_process(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])

    await pause_job("nightly", platform, reason="a holiday")
    await resume_job("nightly", platform, by="ada")

    _, paused, resumed = await told()
    assert (paused["actor"], paused["reason"], resumed["actor"]) == (getpass.getuser(), "a holiday", "ada")
    assert f"of {getpass.getuser()} on " in str(paused["origin"])


async def test_a_reason_that_is_too_long_pauses_nothing(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])

    with pytest.raises(ValueError, match="500 characters"):
        await pause_job("nightly", platform, reason="x" * 501)

    assert (await platform.schedules.get("nightly"))["paused_at"] is None
    assert len(await told()) == 1


async def test_a_pause_that_cannot_be_told_does_not_happen(platform: Platform, told) -> None:
    await platform.schedules.ship("backup", [NIGHTLY])
    async with platform.ledger.transaction() as connection:
        head = await connection.fetchrow("delete from carillon.audit_head returning seq, hash")

    with pytest.raises(Exception, match="restore it from a backup"):
        await platform.schedules.pause("nightly", ADA)

    async with platform.ledger.transaction() as connection:
        await connection.execute("insert into carillon.audit_head (seq, hash) values ($1, $2)", *head)
    assert (await platform.schedules.get("nightly"))["paused_at"] is None
    assert len(await told()) == 1
