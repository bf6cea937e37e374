"""What the clock does to real rows: it fires on time and once, and each fire time has its outcome."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pydantic import SecretStr

from carillon import Service, Tasks
from carillon.contracts import BackupRequested
from carillon.errors import ConfigurationError
from carillon.jobs import get_job_status, pause_job, resume_job
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing.eventually import eventually
from carillon.testing.running import running
from scheduler.round import Round

HOUR = timedelta(hours=1)


def ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


async def test_an_interval_fires_its_event_within_a_second_of_each_due_time(platform: Platform, rows, ticking) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)

    async with ticking() as clock:
        fired = await rows.until_fired("heartbeat", 3)

    assert [later - earlier for earlier, later in itertools.pairwise(fired)] == [timedelta(seconds=1)] * (
        len(fired) - 1
    )
    late = await rows.one("select max(decided_at - fire_at) from carillon.fires where schedule = 'heartbeat'")
    assert late < timedelta(seconds=1)
    assert clock.value("carillon_scheduler_failed_ticks_total") == 0
    assert clock.value("carillon_scheduler_fires_total", outcome="fired") >= 3
    assert clock.value("carillon_scheduler_lateness_seconds_bucket", le="1.0") >= 3


async def test_the_event_of_a_fire_names_schedule_and_fire_time(platform: Platform, rows, ticking) -> None:
    await rows.schedule("nightly", interval_seconds=3600, anchor=ago(minutes=60, seconds=10), created_at=ago(hours=2))

    async with ticking():
        (fire_at,) = await rows.until_fired("nightly")

    (event,) = await rows.events("nightly")
    assert (event["event_id"], event["source"]) == (f"nightly@{fire_at.isoformat()}", "/carillon/scheduler")
    assert (event["type"], event["actor"]) == ("backup.requested.v1", "scheduler")
    assert await rows.one("select event_id from carillon.fires where outcome = 'fired'") == event["id"]


async def test_a_fire_becomes_a_run_of_whoever_hears_it_in_one_trace(
    platform: Platform, platform_settings: PlatformSettings, rows, ticking
) -> None:
    tasks = Tasks("listener")

    @tasks.hears(BackupRequested)
    async def hear(event: BackupRequested) -> str:
        """Repeat the source. Safe to run twice: it changes nothing."""
        return event.source

    trace.set_tracer_provider(TracerProvider())
    service = Service(name="listener", settings=platform_settings, tasks=tasks)
    async with running(service, platform), ticking():
        await rows.schedule("nightly", interval_seconds=1)
        await rows.until_fired("nightly")

        async def run_of_it() -> object:
            query = (
                "select result, traceparent from carillon.runs where state = 'completed' order by created_at limit 1"
            )
            return await rows.connection.fetchrow(query)

        result, traceparent = await eventually(run_of_it)

    event = (await rows.events("nightly"))[0]
    assert result == '"platform"'
    assert traceparent.split("-")[1] == event["traceparent"].split("-")[1]


async def test_each_fire_begins_a_trace_of_its_own(platform: Platform, rows, ticking) -> None:
    await rows.schedule("one", interval_seconds=1)
    await rows.schedule("two", interval_seconds=1)

    async with ticking():
        await rows.until_fired("one", 2)
        await rows.until_fired("two", 2)

    events = [*await rows.events("one"), *await rows.events("two")]
    assert len({event["traceparent"].split("-")[1] for event in events}) == len(events)


async def test_a_new_schedule_is_noticed_within_a_second(platform: Platform, rows, ticking) -> None:
    async with ticking():
        await rows.schedule("late-comer", interval_seconds=1)
        created = datetime.now(UTC)
        (first, *_) = await rows.until_fired("late-comer")

    assert first - created <= timedelta(seconds=1)
    assert datetime.now(UTC) - created < timedelta(seconds=2.5)


async def test_after_a_downtime_one_is_fired_and_the_others_are_accounted_for(
    platform: Platform, rows, ticking
) -> None:
    began = ago(minutes=20).replace(microsecond=0)
    await rows.schedule("missed", interval_seconds=60, anchor=began, created_at=began, next_fire_at=began + HOUR / 60)

    async with ticking():
        (fired,) = await rows.until_fired("missed")

    outcomes = await rows.connection.fetch("select outcome from carillon.fires")
    assert Counter(row["outcome"] for row in outcomes) == {"misfired": 15, "coalesced": 4, "fired": 1}
    assert fired == began + HOUR / 3
    assert await rows.one("select next_fire_at from carillon.schedules") == fired + HOUR / 60


async def test_a_year_of_missed_seconds_is_a_bounded_number_of_rows(platform: Platform, rows, ticking) -> None:
    began = ago(days=365).replace(microsecond=0)
    await rows.schedule("missed", interval_seconds=1, anchor=began, created_at=began, next_fire_at=began)

    async with ticking():
        await rows.until_fired("missed", 2)

    assert len(await rows.fires("missed", "misfired")) == 101
    assert len(await rows.fires("missed", "coalesced")) <= 101
    assert len(await rows.events("missed")) == len(await rows.fires("missed"))


async def test_a_schedule_that_is_paused_fires_nothing_and_says_by_whom(platform: Platform, rows, ticking) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)

    async with ticking():
        await rows.until_fired("heartbeat")
        await pause_job("heartbeat", platform, by="ada")
        fired = len(await rows.fires("heartbeat"))

        async def two_left_out() -> bool:
            return len(await rows.fires("heartbeat", "paused")) >= 2

        await eventually(two_left_out)
        assert len(await rows.fires("heartbeat")) == fired
        (job,) = await get_job_status(platform)

    assert (job["name"], job["paused_by"], job["next_run_time"]) == ("heartbeat", "ada", None)
    assert await rows.one("select detail from carillon.fires where outcome = 'paused' limit 1") == "paused by ada"


async def test_a_resumed_schedule_goes_on_from_now(platform: Platform, rows, ticking) -> None:
    began = ago(seconds=100).replace(microsecond=0)
    await rows.schedule(
        "heartbeat",
        interval_seconds=1,
        anchor=began,
        created_at=began,
        paused_at=began,
        paused_by="ada",
        next_fire_at=began + timedelta(seconds=1),
    )
    await resume_job("heartbeat", platform)
    resumed = datetime.now(UTC)

    async with ticking():
        fired = await rows.until_fired("heartbeat", 2)
        (job,) = await get_job_status(platform)

    assert fired[0] > resumed - timedelta(seconds=1)
    assert await rows.fires("heartbeat", "coalesced") == []
    assert await rows.fires("heartbeat", "paused") == [began + timedelta(seconds=1)]
    assert job["next_run_time"] is not None


async def test_a_pause_is_a_bounded_number_of_rows(platform: Platform, rows, ticking) -> None:
    began = ago(days=30).replace(microsecond=0)
    await rows.schedule(
        "heartbeat", interval_seconds=1, anchor=began, created_at=began, paused_at=began, next_fire_at=began
    )

    async with ticking():

        async def bounded() -> bool:
            return len(await rows.fires("heartbeat", "paused")) == 101

        await eventually(bounded)
        before = await rows.one("select next_fire_at from carillon.schedules")

        async def went_on() -> bool:
            return bool(await rows.one("select next_fire_at from carillon.schedules") > before)

        await eventually(went_on)

    assert len(await rows.fires("heartbeat", "paused")) == 101


async def test_pausing_what_is_not_there_says_what_to_do(platform: Platform) -> None:
    with pytest.raises(ConfigurationError, match="no schedule 'nothing'"):
        await pause_job("nothing", platform)


async def test_a_schedule_that_cannot_be_followed_stops_no_other(platform: Platform, rows, ticking) -> None:
    await rows.schedule("bad-cron", cron="every day")
    await rows.schedule("bad-zone", cron="* * * * *", timezone="Mars/Olympus")
    await rows.schedule("bad-type", interval_seconds=1, event_type="Not A Type")
    await rows.schedule("b" * 300, interval_seconds=1)
    await rows.schedule("good", interval_seconds=1)

    async with ticking() as clock:
        await rows.until_fired("good", 2)

        assert clock.value("carillon_scheduler_broken_schedules") == 4
        assert clock.clock.fault() is None


async def test_a_mended_schedule_fires_again_at_once(platform: Platform, rows, ticking) -> None:
    await rows.schedule("mended", interval_seconds=1, timezone="UTC", event_type="Not A Type")

    async with ticking() as clock:

        async def broken() -> bool:
            return clock.value("carillon_scheduler_broken_schedules") == 1

        await eventually(broken)
        query = "update carillon.schedules set event_type = 'backup.requested.v1', revision = revision + 1"
        await rows.connection.execute(query)
        await rows.until_fired("mended", within=4)


async def test_a_fire_time_decided_before_is_not_fired_again(platform: Platform, rows, ticking) -> None:
    began = ago(seconds=30).replace(microsecond=0)
    async with ticking():
        await rows.schedule("wound-back", interval_seconds=20, anchor=began, created_at=began)
        await rows.until_fired("wound-back")
        await rows.connection.execute("update carillon.schedules set next_fire_at = $1", began)
        await rows.schedule("after-it", interval_seconds=1)
        await rows.until_fired("after-it", 2)

    assert len(await rows.fires("wound-back")) == len(await rows.events("wound-back")) <= 2


async def test_two_that_both_believe_to_lead_fire_once(platform: Platform, rows) -> None:
    began = ago(minutes=1).replace(microsecond=0)
    for number in range(20):
        await rows.schedule(f"both-{number}", interval_seconds=45, anchor=began, created_at=began)
    epoch = await rows.one("insert into scheduler.leaders (host, pid) values ('here', 1) returning epoch")
    both = [Round(platform, HOUR), Round(platform, HOUR)]

    results = await asyncio.gather(*(one.decide(datetime.now(UTC), epoch, [], 7) for one in both * 6))

    assert sum(len(result.events) for result in results) == 20
    assert await rows.one("select count(*) from carillon.events") == 20


async def test_a_leader_that_was_replaced_decides_nothing(platform: Platform, rows) -> None:
    await rows.schedule("due", interval_seconds=1, created_at=ago(seconds=10))
    old = await rows.one("insert into scheduler.leaders (host, pid) values ('here', 1) returning epoch")
    await rows.connection.execute("insert into scheduler.leaders (host, pid) values ('there', 2)")

    result = await Round(platform, HOUR).decide(datetime.now(UTC), old, [], 100)

    assert (list(result.fires), list(result.events)) == ([], [])


async def test_a_clock_that_is_put_back_does_not_wait_for_the_future(platform: Platform, rows, ticking) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)
    shift = timedelta(days=3650)

    async with ticking(now=lambda: datetime.now(UTC) + shift):
        await rows.until_fired("heartbeat")
    async with ticking():

        async def fired_now() -> bool:
            return any(moment < datetime.now(UTC) + HOUR for moment in await rows.fires("heartbeat"))

        await eventually(fired_now, within=5)

    assert await rows.one("select next_fire_at from carillon.schedules") < datetime.now(UTC) + HOUR


async def test_the_clock_goes_on_when_postgresql_ends_all_its_sessions(platform: Platform, rows, ticking) -> None:
    await rows.schedule("heartbeat", interval_seconds=1)

    async with ticking() as clock:
        for times in (1, 3, 5):
            await rows.until_fired("heartbeat", times)
            await rows.one(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and application_name like 'carillon %'"
            )
        fired = await rows.until_fired("heartbeat", 8)

        assert clock.clock.fault() is None
    every = [*fired, *await rows.fires("heartbeat", "coalesced")]
    assert len(set(every)) == (max(every) - min(every)) / timedelta(seconds=1) + 1
    assert await rows.one("select count(*) from scheduler.leaders") >= 3


async def test_the_probe_says_why_when_the_clock_stands_still(platform: Platform, rows, ticking) -> None:
    async with ticking() as clock:
        await rows.connection.execute("alter table scheduler.leaders rename to hidden")

        async def fault() -> str | None:
            return clock.clock.fault()

        said = await eventually(fault)
        await rows.connection.execute("alter table scheduler.hidden rename to leaders")

        async def mended() -> bool:
            return clock.clock.fault() is None

        await eventually(mended)

    assert "has not ticked for 5 s" in str(said)
    assert "scheduler.leaders" in str(said)


async def test_a_thousand_due_at_once_are_each_fired_once(platform: Platform, rows, ticking) -> None:
    due = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0)
    await rows.connection.execute(
        "insert into carillon.schedules (name, interval_seconds, event_type, event_data, owner, anchor, next_fire_at)"
        """ select 'many-' || n, 3600, 'backup.requested.v1', '{"source": "platform"}', 'tests', $1::timestamptz, $1"""
        " from generate_series(1, 1000) as n",
        due,
    )

    async with ticking():

        async def all_fired() -> bool:
            return await rows.one("select count(*) from carillon.fires where outcome = 'fired'") == 1000

        await eventually(all_fired)

    assert await rows.one("select count(*) from carillon.events") == 1000
    assert await rows.one("select max(decided_at - fire_at) from carillon.fires") < timedelta(seconds=2)


async def test_over_rabbitmq_the_event_of_a_fire_is_published(
    platform_settings: PlatformSettings, rows, ticking_on, rabbit_url: str, rabbit_prefix: str
) -> None:
    rabbit = {"rabbit_url": SecretStr(rabbit_url), "rabbit_queue_prefix": rabbit_prefix}
    await rows.schedule("nightly", interval_seconds=1)

    async with Platform(platform_settings.model_copy(update=rabbit), name="tests") as platform, ticking_on(platform):
        await rows.until_fired("nightly")

        async def published() -> bool:
            return await rows.one("select count(*) from carillon.events where published_at is not null") > 0

        await eventually(published)
