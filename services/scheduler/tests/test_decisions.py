"""Every fire time gets exactly one outcome, however many there are."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.decisions import MOST_ROWS, Outcome, decide, leave_out
from scheduler.timetable import IntervalTimetable, fire_times

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTELY = IntervalTimetable(60, NOON)
SECONDLY = IntervalTimetable(1, NOON)
GRACE = timedelta(minutes=5)


def test_a_fire_time_that_is_due_is_fired() -> None:
    (decision,) = decide(MINUTELY, NOON, NOON + timedelta(seconds=60.02), GRACE)

    assert (decision.fire_at, decision.outcome, decision.detail) == (NOON + timedelta(seconds=60), "fired", None)


def test_nothing_is_decided_before_it_is_due() -> None:
    assert decide(MINUTELY, NOON, NOON + timedelta(seconds=59.99), GRACE) == []


def test_after_a_downtime_the_latest_within_grace_is_fired_and_older_ones_are_misfired() -> None:
    decisions = decide(MINUTELY, NOON, NOON + timedelta(minutes=12, seconds=30), GRACE)

    assert Counter(decision.outcome for decision in decisions) == {"misfired": 7, "coalesced": 4, "fired": 1}
    assert decisions[-1].fire_at == NOON + timedelta(minutes=12)
    assert decisions[-1].detail == "30.0 s late"


def test_a_fire_time_exactly_as_old_as_the_grace_still_fires() -> None:
    hourly = IntervalTimetable(3600, NOON)

    decisions = decide(hourly, NOON, NOON + timedelta(hours=1) + GRACE, GRACE)

    assert [decision.outcome for decision in decisions] == [Outcome.FIRED]


def test_a_fire_time_older_than_the_grace_is_only_recorded() -> None:
    hourly = IntervalTimetable(3600, NOON)

    decisions = decide(hourly, NOON, NOON + timedelta(hours=1, milliseconds=1) + GRACE, GRACE)

    assert [decision.outcome for decision in decisions] == [Outcome.MISFIRED]


def test_ten_years_of_missed_seconds_are_a_bounded_number_of_rows() -> None:
    decisions = decide(SECONDLY, NOON, NOON + timedelta(days=3650), GRACE)

    counts = Counter(decision.outcome for decision in decisions)
    assert counts == {"misfired": MOST_ROWS + 1, "coalesced": MOST_ROWS + 1, "fired": 1}
    assert "all that follow until" in str(decisions[MOST_ROWS].detail)


@given(
    interval=st.integers(1, 400),
    downtime=st.integers(0, 2_000_000).map(lambda millis: timedelta(milliseconds=millis)),
)
def test_every_fire_time_of_a_downtime_is_decided_once(interval: int, downtime: timedelta) -> None:
    timetable = IntervalTimetable(interval, NOON)
    decisions = decide(timetable, NOON, NOON + downtime, GRACE)

    expected = list(fire_times(timetable, NOON, NOON + downtime))
    decided = [decision.fire_at for decision in decisions]
    assert decided == sorted(set(decided))
    assert set(decided) <= set(expected)
    if len(expected) <= MOST_ROWS:
        assert decided == expected
    assert sum(decision.outcome is Outcome.FIRED for decision in decisions) <= 1


def test_a_paused_schedule_has_a_bounded_number_of_rows_and_says_by_whom() -> None:
    first = leave_out(SECONDLY, NOON, NOON + timedelta(seconds=60), 0, "ada")
    second = leave_out(SECONDLY, NOON + timedelta(seconds=60), NOON + timedelta(seconds=500), len(first), "ada")
    third = leave_out(SECONDLY, NOON + timedelta(seconds=500), NOON + timedelta(days=365), MOST_ROWS + 1, "ada")

    assert (len(first), len(second), len(third)) == (60, 41, 0)
    assert first[0].detail == "paused by ada"
    assert second[-1].detail == "paused by ada; so are all that follow until it is resumed"
