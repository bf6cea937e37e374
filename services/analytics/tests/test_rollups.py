"""Folding keeps totals; spans never reach where the ledger has forgotten."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from analytics.rollups import Rollup, folded
from analytics.time import DAY, HOUR, Span, ceil_hour, dirty_hours

START = datetime(2026, 11, 24, tzinfo=UTC)
WEEK = timedelta(hours=168)

rollups = st.builds(
    Rollup,
    st.integers(0, 3).map(lambda hour: START + hour * HOUR),
    st.sampled_from(["run", "event"]),
    st.integers(0, 40).map(lambda number: f"orders.task_{number}"),
    st.sampled_from(["completed", "failed"]),
    st.integers(1, 100),
    st.integers(0, 10).map(float),
)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - zone given


@given(st.lists(rollups, max_size=200, unique_by=lambda row: (row.bucket, row.kind, row.name, row.state)))
def test_folding_keeps_every_total_and_the_limit(rows: list[Rollup]) -> None:
    result = folded(rows, 40)

    assert len(result) <= 40
    assert _totals(result) == _totals(rows)


def _totals(rows: list[Rollup]) -> Counter[tuple[object, ...]]:
    totals: Counter[tuple[object, ...]] = Counter()
    for row in rows:
        totals[row.bucket, row.kind, row.state, "count"] += row.count
        totals[row.bucket, row.kind, row.state, "seconds"] += int(row.seconds)
    return +totals


@given(moments, st.none() | moments, st.none() | moments)
def test_hours_computed_anew_are_whole_and_still_in_the_ledger(
    now: datetime, watermark: datetime | None, since: datetime | None
) -> None:
    span = dirty_hours(now, watermark=watermark, late=timedelta(hours=48), retention=WEEK, since=since)

    assert ceil_hour(now - WEEK) <= span.since < span.until
    assert span.until - HOUR <= now < span.until
    assert (span.until - span.since) % HOUR == timedelta(0)


def test_a_span_is_cut_into_parts_that_leave_nothing_out() -> None:
    span = Span(START, START + timedelta(hours=53))

    parts = list(span.chunks(DAY))

    assert [part.since for part in parts] == [START, START + DAY, START + 2 * DAY]
    assert [part.until for part in parts][-1] == span.until
