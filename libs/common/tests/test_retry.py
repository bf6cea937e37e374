"""The retry policy: bounds of the jitter, the cap, the end of patience, rules for types of errors, and the budget."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carillon import NEVER, Retry
from carillon.errors import PermanentError, Snooze
from carillon.retry import Budget

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
    [
        {"attempts": 0},
        {"attempts": 1001},
        {"base": timedelta(0)},
        {"base": timedelta(hours=1)},
        {"cap": timedelta(0)},
        {"cap": timedelta(days=366)},
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused_where_it_is_written(fault):
    with pytest.raises(ValueError, match=r"cannot be followed: attempts is 1 to 1000, and 0 < base <= cap"):
        Retry(**fault)


@pytest.mark.parametrize("fault", [{"attempts": 2.5}, {"attempts": True}, {"base": 1}, {"cap": 60.0}])
def test_a_policy_of_the_wrong_kind_is_refused_with_the_right_one(fault):
    with pytest.raises(TypeError, match=r"attempts is a whole number, and base and cap are timedeltas"):
        Retry(**fault)


PATIENT = Retry(attempts=10, base=timedelta(seconds=3))


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (ConnectionError(), PATIENT),
        (ConnectionResetError(), PATIENT),
        (BrokenPipeError(), NEVER),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "no"), NEVER),
        (OSError(), None),
        (KeyError(), None),
    ],
)
def test_the_rule_of_the_most_specific_type_holds_and_subclasses_count(error, follows):
    policy = Retry(rules={ValueError: NEVER, ConnectionError: PATIENT, BrokenPipeError: NEVER})

    assert policy.for_error(error) is (follows or policy)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"ValueError": NEVER}, "is no type of error"),
        ({int: NEVER}, "is no type of error"),
        ({ValueError: 3}, "must be a Retry without rules of its own, or NEVER"),
        ({ValueError: Retry(rules={KeyError: NEVER})}, "must be a Retry without rules of its own, or NEVER"),
        ({PermanentError: PATIENT}, "PermanentError says itself what happens next"),
        ({Snooze: PATIENT}, "Snooze says itself what happens next"),
    ],
)
def test_a_rule_that_could_not_be_followed_is_refused_where_it_is_written(rules, says):
    with pytest.raises((TypeError, ValueError), match=says):
        Retry(rules=rules)


@pytest.mark.parametrize("per_second", [0, -1, math.nan])
def test_a_budget_that_lets_nothing_through_is_refused_where_it_is_written(per_second):
    with pytest.raises(ValueError, match=r"per_second is a number above 0, or math.inf for no limit"):
        Retry(per_second=per_second)


def test_rules_and_budget_are_shown_as_json_can_say_them():
    policy = Retry(rules={ConnectionError: PATIENT, ShopClosedError: NEVER}, per_second=math.inf)

    assert policy.shown["retries_per_second"] is None
    assert policy.shown["retry_rules"]["ConnectionError"]["attempts"] == 10
    assert [name.rpartition(".")[2] for name in policy.shown["retry_rules"]] == [
        "ConnectionError", "ShopClosedError"
    ]  # fmt: skip


class ShopClosedError(Exception): ...


class Clock:
    """A monotonic clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_five_thousand_runs_that_fail_for_minutes_ask_at_most_so_often_a_second():
    policy = Retry(attempts=1000, base=timedelta(seconds=1), cap=timedelta(minutes=10), per_second=20)
    clock = Clock()
    budget = Budget(policy, clock=clock)
    due = [(clock.now + budget.reserve(policy.delay(1)).total_seconds(), 2) for _ in range(5000)]
    begun: Counter[int] = Counter()

    for _ in range(300):
        clock.now += 1
        again = [attempt for moment, attempt in due if moment < clock.now]
        begun[int(clock.now)] += len(again)
        due = [each for each in due if each[0] >= clock.now]
        due += [(clock.now + budget.reserve(policy.delay(n)).total_seconds(), n + 1) for n in again]

    assert max(begun.values()) <= 21
    assert sum(begun.values()) > 300 * 18
    assert len(due) == 5000
    assert len(budget._taken) < 2 * 5000 + 1024


def test_a_free_budget_delays_nothing_and_a_far_retry_keeps_no_near_one():
    clock = Clock()
    budget = Budget(Retry(per_second=1), clock=clock)

    far, near, next_to_it = [budget.reserve(timedelta(seconds=seconds)) for seconds in (300, 5, 5)]

    assert (far, near, next_to_it) == (timedelta(seconds=300), timedelta(seconds=5), timedelta(seconds=6))


def test_more_retries_than_the_budget_has_room_for_come_evenly_and_none_is_put_off_beyond_the_cap():
    budget = Budget(Retry(base=timedelta(seconds=1), cap=timedelta(seconds=10), per_second=1), clock=Clock())

    delays = [budget.reserve(timedelta(0)).total_seconds() for _ in range(1011)]

    crowd = delays[11:]
    assert max(delays) <= 10
    assert delays[:11] == list(range(11))
    assert all(130 < sum(low <= delay < low + 1 for delay in crowd) < 270 for low in range(5, 10))


def test_without_a_limit_a_retry_comes_when_its_policy_says():
    budget = Budget(Retry(per_second=math.inf), clock=Clock())

    assert {budget.reserve(timedelta(seconds=1)) for _ in range(100)} == {timedelta(seconds=1)}
