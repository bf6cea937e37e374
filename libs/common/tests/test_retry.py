"""The retry policy: bounds of the jitter, the cap, and the end of patience."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carillon import Retry

spans = st.timedeltas(timedelta(milliseconds=1), timedelta(days=1))
policies = st.builds(
    lambda attempts, base, more: Retry(attempts=attempts, base=base, cap=base + more),
    st.integers(1, 1000),
    spans,
    st.timedeltas(timedelta(0), timedelta(days=30)),
)


@given(policies, st.integers(1, 1000))
def test_a_delay_is_never_negative_and_never_beyond_the_cap(policy, attempt):
    delay = policy.delay(attempt)

    if attempt >= policy.attempts:
        assert delay is None
    else:
        assert timedelta(0) <= delay <= policy.cap


def test_the_jitter_is_full_so_a_crowd_spreads_over_the_whole_span():
    policy = Retry(attempts=9, base=timedelta(seconds=8), cap=timedelta(seconds=8))

    delays = [policy.delay(1).total_seconds() for _ in range(2000)]

    quarters = [sum(low <= delay < low + 2 for delay in delays) for low in (0, 2, 4, 6)]
    assert all(400 < count < 600 for count in quarters), quarters


def test_the_ceiling_doubles_until_the_cap():
    policy = Retry(attempts=20, base=timedelta(seconds=1), cap=timedelta(seconds=10))

    highest = [max(policy.delay(attempt).total_seconds() for _ in range(300)) for attempt in (1, 2, 3, 4, 5, 12)]

    for seen, ceiling in zip(highest, (1, 2, 4, 8, 10, 10), strict=True):
        assert ceiling * 0.9 < seen <= ceiling


def test_one_attempt_means_no_retry():
    assert Retry(attempts=1).delay(1) is None


@pytest.mark.parametrize(
    "fault",
    [{"attempts": 0}, {"attempts": 1001}, {"base": timedelta(0)}, {"base": timedelta(hours=1)}, {"cap": timedelta(0)}],
)
def test_a_policy_that_cannot_be_followed_is_refused_where_it_is_written(fault):
    with pytest.raises(ValueError, match=r"cannot be followed: attempts is 1 to 1000, and 0 < base <= cap"):
        Retry(**fault)
