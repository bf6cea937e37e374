"""From rollups to the data set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carillon.contracts import RollupRow, RollupsComputed
from reports import wording
from reports.collecting import NAME_LIMIT, collect_operations, printable
from reports.dataset import add, folded_tasks

NOON = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
THIS_HOUR = datetime(2026, 11, 24, 12, tzinfo=UTC)


def rolled_up(*rows: RollupRow) -> RollupsComputed:
    hourly = [row for row in rows if row.grain == "hour"]
    return RollupsComputed(
        watermark=NOON, cause="test", hourly=hourly, daily=[row for row in rows if row.grain == "day"]
    )


def runs(state: str, count: int, *, name: str = "orders.pay", seconds: float = 1.0, back: int = 0) -> RollupRow:
    bucket = THIS_HOUR - timedelta(hours=back)
    return RollupRow(grain="hour", bucket=bucket, kind="run", name=name, state=state, count=count, seconds=seconds)


def test_an_hour_without_rows_counts_zero_runs():
    data = collect_operations(rolled_up(runs("completed", 3, back=2)))

    assert [line.ended for line in data.hours] == [0] * 21 + [3, 0, 0]
    assert data.hours[-1].start == THIS_HOUR


def test_a_row_older_than_the_period_is_left_out_of_every_figure():
    data = collect_operations(rolled_up(runs("completed", 3), runs("failed", 9, back=24)))

    assert data.totals.recent.ended == 3


def test_cancelled_runs_do_not_lower_the_success_rate():
    data = collect_operations(rolled_up(runs("completed", 3), runs("cancelled", 7), runs("failed", 1)))

    assert data.recent.success_rate == pytest.approx(0.75)


def test_a_state_nobody_has_heard_of_is_counted_as_other():
    data = collect_operations(rolled_up(runs("partial", 2), runs("vanished", 3)))

    assert data.recent.other == 5


def test_a_time_without_a_zone_is_taken_as_utc():
    row = runs("completed", 1).model_copy(update={"bucket": THIS_HOUR.replace(tzinfo=None)})

    data = collect_operations(rolled_up(row).model_copy(update={"watermark": NOON.replace(tzinfo=None)}))

    assert data.as_of == NOON
    assert data.recent.ended == 1


def test_what_analytics_counted_together_comes_last_and_is_explained():
    data = collect_operations(rolled_up(runs("completed", 900, name="(other)"), runs("completed", 1)))

    assert [line.name for line in data.tasks] == ["orders.pay", "(other)"]
    assert data.busiest is not None
    assert data.busiest.name == "orders.pay"
    assert "counted together" in " ".join(data.notes)


def test_a_name_loses_its_control_characters_and_what_is_too_long():
    shown = printable("a\x00b\n" + "c" * 300)

    assert shown.startswith("a\ufffdb\ufffdccc")
    assert len(shown) == NAME_LIMIT


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, wording.NOTHING), (1.0, "100 %"), (0.0, "0 %"), (0.99999, "99.9 %"), (0.00001, "0.1 %"), (0.5, "50.0 %")],
)
def test_only_a_flawless_period_says_a_hundred_per_cent(share: float | None, words: str):
    assert wording.percent(share) == words


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (59_999, "1 min 0 s"),
        (3_599_999, "1 h 0 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_a_duration_is_said_in_its_two_largest_units(milliseconds: int, words: str):
    assert wording.duration(milliseconds) == words


def test_the_summary_says_what_ended_and_how():
    rows = [runs("completed", 1210, seconds=61), runs("failed", 2), runs("completed", 1, name="orders.ship")]

    said = wording.summary(collect_operations(rolled_up(*rows)))

    assert said == (
        "1,213 runs ended in the last 24 hours: 1,211 completed, 2 failed. Success rate 99.8 %. "
        "Busiest task: orders.pay (1,212 runs). Execution took 1 min 3 s in all."
    )


def test_the_summary_of_nothing_says_what_to_do():
    said = wording.summary(collect_operations(rolled_up()))

    assert said.startswith("No run ended in the last 24 hours")
    assert "carillon tour" in said


counted = st.tuples(
    st.sampled_from(["a.b", "c.d", "e.f", "=x"]),
    st.sampled_from(["completed", "failed", "cancelled", "partial"]),
    st.integers(0, 10**9),
    st.floats(0, 10**6, allow_nan=False),
    st.integers(0, 30),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(counted, max_size=60), st.integers(1, 6))
def test_hours_tasks_and_folded_tasks_always_add_up_to_the_same(
    rows: list[tuple[str, str, int, float, int]], limit: int
):
    made = [runs(state, count, name=name, seconds=secs, back=back) for name, state, count, secs, back in rows]

    data = collect_operations(rolled_up(*made))

    assert add(data.hours) == add(data.tasks) == add(folded_tasks(data.tasks, limit))
    assert data.recent.ended == sum(row[2] for row in rows if row[4] < 24)
