"""Cron expressions are read as crontab(5) reads them, and what cannot be followed is refused in plain words."""

from __future__ import annotations

import pytest

from scheduler.cron import Cron, parse_cron
from scheduler.errors import ScheduleError

FULL = {
    "minutes": set(range(60)),
    "hours": set(range(24)),
    "days": set(range(1, 32)),
    "months": set(range(1, 13)),
    "weekdays": set(range(7)),
}

READ = [
    ("* * * * *", {}),
    ("0 2 * * *", {"minutes": {0}, "hours": {2}}),
    ("*/15 9-17 * * 1-5", {"minutes": {0, 15, 30, 45}, "hours": set(range(9, 18)), "weekdays": {1, 2, 3, 4, 5}}),
    ("5/20 * * * *", {"minutes": {5, 25, 45}}),
    ("1,2,40-42 * * * *", {"minutes": {1, 2, 40, 41, 42}}),
    ("0 0 1 jan,JUL *", {"minutes": {0}, "hours": {0}, "days": {1}, "months": {1, 7}}),
    ("0 0 * * 0", {"minutes": {0}, "hours": {0}, "weekdays": {0}}),
    ("0 0 * * 7", {"minutes": {0}, "hours": {0}, "weekdays": {0}}),
    ("0 0 * * 5-7", {"minutes": {0}, "hours": {0}, "weekdays": {5, 6, 0}}),
    ("0 0 * * fri-sun", {"minutes": {0}, "hours": {0}, "weekdays": {5, 6, 0}}),
    ("0 0 * * sun-tue", {"minutes": {0}, "hours": {0}, "weekdays": {0, 1, 2}}),
    ("0 0 * * */2", {"minutes": {0}, "hours": {0}, "weekdays": {0, 2, 4, 6}}),
    ("0 0 29 2 *", {"minutes": {0}, "hours": {0}, "days": {29}, "months": {2}}),
    ("0 0 31 2,3 *", {"minutes": {0}, "hours": {0}, "days": {31}, "months": {2, 3}}),
    ("@daily", {"minutes": {0}, "hours": {0}}),
    ("@Hourly", {"minutes": {0}}),
    ("@weekly", {"minutes": {0}, "hours": {0}, "weekdays": {0}}),
    ("  0\t2  * * * ", {"minutes": {0}, "hours": {2}}),
]

REFUSED = [
    ("", "0 fields"),
    ("* * * *", "4 fields"),
    ("0 * * * * *", "6 fields"),
    ("60 * * * *", "60 cannot be the minute; it goes from 0 to 59"),
    ("* 24 * * *", "24 cannot be the hour"),
    ("* * 0 * *", "0 cannot be the day of the month"),
    ("* * * 13 *", "13 cannot be the month"),
    ("* * * * 8", "8 cannot be the weekday"),
    ("* * * foo *", "'foo' cannot be the month; write 1 to 12 or one of jan, feb"),
    ("* * * * ?", "'?' cannot be the weekday"),
    ("* * l * *", "'l' cannot be the day of the month"),
    ("* * * * 5#2", "'5#2' cannot be the weekday"),
    ("*/0 * * * *", "a step of 0 is no use"),
    ("*/60 * * * *", "a step of 60 is no use"),
    ("1,,2 * * * *", "'' cannot be the minute"),
    ("-5 * * * *", "'-5' cannot be the minute"),
    ("1.5 * * * *", "'1.5' cannot be the minute"),
    ("٣ * * * *", "cannot be the minute"),
    ("* 22-2 * * *", "runs backwards; write it as two: 22-23,0-2"),
    ("*-5 * * * *", "mixes * with a range"),
    ("0 0 31 2 *", "none of its months has a day 31, so it would never fire"),
    ("0 0 31 4,6,9,11 *", "never fire"),
    ("0 0 30-31 feb *", "never fire"),
    ("@reboot", "@hourly"),
    ("* " * 500, "characters"),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_an_expression_stands_for_these_numbers(text: str, expected: dict[str, set[int]]) -> None:
    cron = parse_cron(text)

    assert {name: set(getattr(cron, name)) for name in FULL} == {**FULL, **expected}


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_cannot_be_followed_is_refused_in_plain_words(text: str, words: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_cron(text)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "either"),
    [("0 0 13 * 5", True), ("0 0 13 * *", False), ("0 0 * * 5", False), ("0 0 */2 * 5", False), ("0 0 31 2 1", True)],
)
def test_either_day_is_enough_where_both_kinds_are_restricted(text: str, *, either: bool) -> None:
    cron = parse_cron(text)

    assert cron.either_day is either


def test_only_an_expression_of_all_hours_follows_elapsed_time() -> None:
    crons: list[Cron] = [parse_cron(text) for text in ("*/5 * * * *", "0 0-23 * * *", "0 */2 * * *", "0 2 * * *")]

    assert [cron.every_hour for cron in crons] == [True, True, False, False]
