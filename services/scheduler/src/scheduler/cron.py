"""Cron expressions: five fields in the standard notation, read into the numbers that they stand for.

As in crontab(5): 0 and 7 are Sunday, months and weekdays have names, and where both the day of the month and the
weekday are restricted (neither begins with `*`), either of them is enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.errors import ScheduleError

MOST_CHARACTERS = 200
WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
#: The longest each month can be.
MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH_NAMES = {name: number for number, name in enumerate(MONTHS, 1)}
WEEKDAY_NAMES = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
SUNDAY_AGAIN = 7

_PART = re.compile(r"(?P<first>\*|[0-9a-z]+)(?:-(?P<last>[0-9a-z]+))?(?:/(?P<step>[0-9]{1,3}))?", re.ASCII)


class _Field(NamedTuple):
    word: str
    low: int
    high: int
    names: Mapping[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, MONTH_NAMES),
    _Field("weekday", 0, 7, WEEKDAY_NAMES),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """The numbers that each field of an expression allows; weekday 0 is Sunday."""

    text: str = field(compare=False)
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    #: Whether a day that fits only one of `days` and `weekdays` will do.
    either_day: bool

    @property
    def every_hour(self) -> bool:
        """Whether it goes on hour by hour, so that it follows elapsed time rather than the clock on the wall."""
        return len(self.hours) == 24  # noqa: PLR2004 - hours of a day


def parse_cron(text: str) -> Cron:
    """Read an expression; raises `ScheduleError` saying in plain words what is wrong with it."""
    if len(text) > MOST_CHARACTERS:
        raise _refusal(text[:20] + "...", f"it has {len(text)} characters, and {MOST_CHARACTERS} are enough for any")
    spelled = _spell_out(text)
    fields = spelled.split()
    if len(fields) != len(_FIELDS):
        why = f"it has {len(fields)} fields; write five: minute, hour, day of the month, month, weekday"
        raise _refusal(text, why)
    minutes, hours, days, months, weekdays = (
        _numbers(text, spec, written) for spec, written in zip(_FIELDS, fields, strict=True)
    )
    cron = Cron(
        text=text,
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(number % SUNDAY_AGAIN for number in weekdays),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )
    if not cron.either_day and min(days) > max(MONTH_DAYS[month - 1] for month in months):
        raise _refusal(text, f"none of its months has a day {min(days)}, so it would never fire")
    return cron


def _spell_out(text: str) -> str:
    spelled = text.strip().lower()
    if not spelled.startswith("@"):
        return spelled
    if spelled not in WORDS:
        raise _refusal(text, f"of the words there are {', '.join(WORDS)}")
    return WORDS[spelled]


def _numbers(text: str, spec: _Field, written: str) -> frozenset[int]:
    found: set[int] = set()
    for part in written.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            why = f"{part!r} cannot be the {spec.word}; write *, a number, a range 1-5, a step */2, or a list 1,3"
            raise _refusal(text, why)
        found.update(_range(text, spec, match))
    return frozenset(found)


def _range(text: str, spec: _Field, match: re.Match[str]) -> range:
    first, last, step = match["first"], match["last"], match["step"]
    if first == "*":
        if last is not None:
            raise _refusal(text, f"{match[0]!r} mixes * with a range")
        # 7 is Sunday again, so `*` and `*/2` must end at Saturday.
        low, high = spec.low, 6 if spec.high == SUNDAY_AGAIN else spec.high
    else:
        low = _number(text, spec, first)
        # `5/15` means from 5 on, as `5-59/15` does.
        high = _number(text, spec, last) if last is not None else low if step is None else spec.high
    if spec.high == SUNDAY_AGAIN and last is not None and high == 0 < low:
        high = SUNDAY_AGAIN
    if low > high:
        why = f"the {spec.word} range {match[0]!r} runs backwards; write it as two: {low}-{spec.high},{spec.low}-{high}"
        raise _refusal(text, why)
    if step is not None and not 1 <= int(step) <= spec.high:
        raise _refusal(text, f"a step of {step} is no use in {match[0]!r}; a {spec.word} step is 1 to {spec.high}")
    return range(low, high + 1, 1 if step is None else int(step))


def _number(text: str, spec: _Field, written: str) -> int:
    number = spec.names.get(written, int(written) if written.isdigit() else None)
    if number is None:
        named = f" or one of {', '.join(spec.names)}" if spec.names else ""
        raise _refusal(text, f"{written!r} cannot be the {spec.word}; write {spec.low} to {spec.high}{named}")
    if not spec.low <= number <= spec.high:
        raise _refusal(text, f"{written} cannot be the {spec.word}; it goes from {spec.low} to {spec.high}")
    return number


def _refusal(text: str, why: str) -> ScheduleError:
    return ScheduleError(f"the cron expression {text!r} cannot be followed: {why}")
