"""Fire times are right in every zone and on the days on which clocks jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import ScheduleError
from scheduler.timetable import MOST_SECONDS, fire_times, timetable_of, zone_of

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
)


def fires(cron: str, zone: str, after: str, count: int) -> list[str]:
    timetable = timetable_of(cron=cron, interval_seconds=None, timezone=zone, anchor=ANCHOR)
    moments = fire_times(timetable, datetime.fromisoformat(after), datetime(2100, 1, 1, tzinfo=UTC))
    return [moment.astimezone(zone_of(zone)).isoformat(timespec="minutes") for moment in islice(moments, count)]


NEXT = [
    ("0 0 * * 0", "UTC", "2026-11-24T00:00Z", ["2026-11-29T00:00+00:00"]),  # a Sunday, not a Monday
    ("0 0 * * mon", "UTC", "2026-11-24T00:00Z", ["2026-11-30T00:00+00:00"]),
    ("0 0 13 * 5", "UTC", "2026-11-01T00:00Z", ["2026-11-06T00:00+00:00", "2026-11-13T00:00+00:00"]),
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
    ("59 23 31 12 *", "Asia/Kolkata", "2026-01-01T00:00Z", ["2026-12-31T23:59+05:30"]),
    ("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00Z", ["2011-12-31T12:00+14:00", "2012-12-30T12:00+14:00"]),
]

SPRING = [
    ("30 2 * * *", ["2026-03-28T02:30+01:00", "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]),
    ("0 2 * * *", ["2026-03-28T02:00+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
    ("30 2,3 29 3 *", ["2026-03-29T03:30+02:00", "2027-03-29T02:30+02:00"]),
    ("15,45 2 29 3 *", ["2026-03-29T03:15+02:00", "2026-03-29T03:45+02:00", "2027-03-29T02:15+02:00"]),
    ("*/30 1-3 29 3 *", ["2026-03-29T01:00+01:00", "2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00",
                         "2026-03-29T03:30+02:00", "2027-03-29T01:00+02:00"]),
    ("0 * 29 3 *", ["2026-03-29T00:00+01:00", "2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00",
                    "2026-03-29T04:00+02:00"]),
]  # fmt: skip

AUTUMN = [
    ("30 2 * * *", ["2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    ("0 3 * * *", ["2026-10-24T03:00+02:00", "2026-10-25T03:00+01:00", "2026-10-26T03:00+01:00"]),
    ("*/30 2 25 10 *", ["2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00", "2027-10-25T02:00+02:00"]),
    ("30 * 25 10 *", ["2026-10-25T00:30+02:00", "2026-10-25T01:30+02:00", "2026-10-25T02:30+02:00",
                      "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("cron", "zone", "after", "expected"), NEXT)
def test_the_next_fire_times_are_these(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert fires(cron, zone, after, len(expected)) == expected


@pytest.mark.parametrize(("cron", "expected"), SPRING)
def test_a_skipped_local_time_fires_once_and_later_by_what_was_skipped(cron: str, expected: list[str]) -> None:
    assert fires(cron, "Europe/Berlin", "2026-03-27T12:00Z", len(expected)) == expected


@pytest.mark.parametrize(("cron", "expected"), AUTUMN)
def test_a_repeated_local_time_fires_once_unless_every_hour_does(cron: str, expected: list[str]) -> None:
    assert fires(cron, "Europe/Berlin", "2026-10-23T12:00Z", len(expected)) == expected


def test_a_fire_time_within_a_jump_is_found_from_any_moment_before_it() -> None:
    timetable = timetable_of(cron="30 2 * * *", interval_seconds=None, timezone="Europe/Berlin", anchor=ANCHOR)
    due = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

    assert all(timetable.next_fire(due - MINUTE * minutes) == due for minutes in range(1, 60 * 24))


def test_an_interval_counts_whole_seconds_from_its_anchor() -> None:
    anchor = datetime(2026, 11, 24, 10, 0, 0, 987654, tzinfo=UTC)
    timetable = timetable_of(cron=None, interval_seconds=90, timezone="UTC", anchor=anchor)

    moments = fire_times(timetable, anchor, anchor + timedelta(minutes=4))

    assert [moment.isoformat()[11:] for moment in moments] == ["10:01:30+00:00", "10:03:00+00:00"]


@given(
    seconds=st.integers(1, MOST_SECONDS),
    after=st.datetimes(datetime(2026, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - made UTC
    micros=st.integers(0, 999_999),
)
def test_an_interval_comes_out_the_same_whoever_computes_it(seconds: int, after: datetime, micros: int) -> None:
    anchor = ANCHOR + timedelta(microseconds=micros)
    found = timetable_of(cron=None, interval_seconds=seconds, timezone="UTC", anchor=anchor).next_fire(after)

    passed = (after - ANCHOR) // timedelta(seconds=1)
    assert found == ANCHOR + timedelta(seconds=(passed // seconds + 1) * seconds)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"cron": None, "interval_seconds": 0, "timezone": "UTC"}, "the least is one second"),
        ({"cron": None, "interval_seconds": -5, "timezone": "UTC"}, "the least is one second"),
        ({"cron": None, "interval_seconds": 10**12, "timezone": "UTC"}, "the most is ten years"),
        ({"cron": None, "interval_seconds": None, "timezone": "UTC"}, "exactly one"),
        ({"cron": "@daily", "interval_seconds": 5, "timezone": "UTC"}, "exactly one"),
        ({"cron": "@daily", "interval_seconds": None, "timezone": "Europe/Berln"}, "write Europe/Berlin"),
        ({"cron": "@daily", "interval_seconds": None, "timezone": ""}, "no time zone ''"),
        ({"cron": "@daily", "interval_seconds": None, "timezone": "../../etc/passwd"}, "no time zone"),
        ({"cron": "@daily", "interval_seconds": None, "timezone": "Europe"}, "no time zone 'Europe'"),
    ],
)
def test_a_schedule_that_cannot_be_followed_says_why(given_: dict[str, object], words: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        timetable_of(**given_, anchor=ANCHOR)  # type: ignore[arg-type]

    assert words in str(refused.value)


def numbers(low: int, high: int) -> st.SearchStrategy[frozenset[int]]:
    """All numbers of a field, or some."""
    some = st.frozensets(st.integers(low, high), min_size=1, max_size=6)
    return st.one_of(st.just(frozenset(range(low, high + 1))), some)


def brute_force(fields: list[frozenset[int]], zone: ZoneInfo, start: datetime, hours: int) -> list[datetime]:
    """Every due minute of a stretch of time, found by looking at a wall clock once a minute."""
    minutes, allowed_hours, days, weekdays = fields
    every_hour = len(allowed_hours) == 24

    def fits(wall: datetime) -> bool:
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        either = len(days) < 31 and len(weekdays) < 7
        right_day = by_day or by_weekday if either else by_day and by_weekday
        return wall.minute in minutes and wall.hour in allowed_hours and right_day

    due: set[datetime] = set()
    last_wall: datetime | None = None
    for moment in (start + MINUTE * passed for passed in range(-1, hours * 60)):
        seen = moment.astimezone(zone)
        wall = seen.replace(tzinfo=None, fold=0)
        if last_wall is not None:
            skipped = int((wall - last_wall) / MINUTE) - 1
            due.update(moment + MINUTE * index for index in range(skipped) if fits(last_wall + MINUTE * (index + 1)))
            if fits(wall) and (every_hour or not seen.fold):
                due.add(moment)
        last_wall = wall
    return sorted(moment for moment in due if start <= moment < start + timedelta(hours=hours))


#: Some hours before the clocks of each zone jump.
JUMPS = {
    "UTC": (datetime(2026, 12, 31, 12, tzinfo=UTC),),
    "Asia/Kathmandu": (datetime(2028, 2, 28, 12, tzinfo=UTC),),
    "Europe/Berlin": (datetime(2026, 3, 28, 18, tzinfo=UTC), datetime(2026, 10, 24, 18, tzinfo=UTC)),
    "America/New_York": (datetime(2026, 3, 8, 0, tzinfo=UTC), datetime(2026, 11, 1, 0, tzinfo=UTC)),
    "America/Santiago": (datetime(2026, 4, 4, 18, tzinfo=UTC), datetime(2026, 9, 5, 18, tzinfo=UTC)),
    "America/St_Johns": (datetime(2026, 3, 7, 22, tzinfo=UTC), datetime(2026, 10, 31, 22, tzinfo=UTC)),
    "Africa/Casablanca": (datetime(2026, 2, 14, 18, tzinfo=UTC), datetime(2026, 3, 21, 18, tzinfo=UTC)),
    "Australia/Lord_Howe": (datetime(2026, 4, 4, 6, tzinfo=UTC), datetime(2026, 10, 3, 6, tzinfo=UTC)),
    "Pacific/Chatham": (datetime(2026, 4, 4, 6, tzinfo=UTC), datetime(2026, 9, 26, 6, tzinfo=UTC)),
}


@settings(max_examples=120, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    minutes=numbers(0, 59),
    hours=numbers(0, 23),
    days=numbers(1, 31),
    weekdays=numbers(0, 6),
    data=st.data(),
)
def test_fire_times_are_those_that_watching_a_wall_clock_finds(
    zone: str,
    minutes: frozenset[int],
    hours: frozenset[int],
    days: frozenset[int],
    weekdays: frozenset[int],
    data: st.DataObject,
) -> None:
    start = data.draw(st.sampled_from(JUMPS[zone])) + data.draw(st.integers(120, 540)) * MINUTE
    fields = [minutes, hours, days, weekdays]
    written = [
        "*" if len(chosen) == size else ",".join(map(str, sorted(chosen)))
        for chosen, size in zip(fields, (60, 24, 31, 7), strict=True)
    ]
    cron = f"{written[0]} {written[1]} {written[2]} * {written[3]}"
    timetable = timetable_of(cron=cron, interval_seconds=None, timezone=zone, anchor=ANCHOR)

    found = list(fire_times(timetable, start - timedelta(seconds=1), start + timedelta(hours=6, seconds=-1)))

    assert found == brute_force(fields, ZoneInfo(zone), start, 6)
