"""When a schedule is due: APScheduler's triggers compute, here it is told how to read a wall clock that jumps.

Times of a cron expression are local times of the schedule's zone. Two days a year some of them do not exist, or exist
twice:

- A local time that is skipped (02:30 in Europe/Berlin on 2026-03-29) is due once, later by what was skipped: 03:30.
  Where that moment is due anyway it is one fire, not two.
- A local time that happens twice (02:30 on 2026-10-25) is due once, at its first. Only an expression that fires in
  every hour goes on by elapsed time, through both.

So a daily job runs exactly once on every day, and an hourly one exactly once an hour. Every fire time is a whole
second of UTC, computed from the schedule alone: whoever computes it gets the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from scheduler.cron import Cron, parse_cron
from scheduler.errors import ScheduleError

SECOND = timedelta(seconds=1)
#: Longer than the longest jump of a wall clock: Samoa left out a whole day in 2011.
NEARBY = timedelta(hours=26)
#: Ten years. A rarer thing is a cron expression.
MOST_SECONDS = 10 * 366 * 86_400
#: Nobody plans beyond it, and a search has to end.
HORIZON = datetime(2200, 1, 1, tzinfo=UTC)


class Timetable(Protocol):
    """The fire times of one schedule."""

    def next_fire(self, after: datetime) -> datetime | None:
        """The first fire time later than `after`, in UTC; None when there is none before `HORIZON`."""


def fire_times(timetable: Timetable, after: datetime, until: datetime) -> Iterator[datetime]:
    """The fire times later than `after` and not later than `until`, in order."""
    moment = timetable.next_fire(after)
    while moment is not None and moment <= until:
        yield moment
        moment = timetable.next_fire(moment)


def timetable_of(*, cron: str | None, interval_seconds: int | None, timezone: str, anchor: datetime) -> Timetable:
    """The timetable of a schedule; raises `ScheduleError` saying in plain words what cannot be followed."""
    if (cron is None) == (interval_seconds is None):
        message = "a schedule has either a cron expression or an interval; give it exactly one"
        raise ScheduleError(message)
    if cron is not None:
        return _cron_timetable(cron, timezone)
    return IntervalTimetable(_checked_seconds(interval_seconds or 0), anchor)


@lru_cache(maxsize=4096)
def _cron_timetable(cron: str, timezone: str) -> CronTimetable:
    return CronTimetable(parse_cron(cron), zone_of(timezone))


def _checked_seconds(seconds: int) -> int:
    if seconds < 1:
        message = f"an interval of {seconds} seconds is too short; the least is one second"
        raise ScheduleError(message)
    if seconds > MOST_SECONDS:
        message = f"an interval of {seconds} seconds is too long; the most is ten years, {MOST_SECONDS} seconds"
        raise ScheduleError(message)
    return seconds


def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name; raises `ScheduleError` with the names that come close."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = get_close_matches(name, sorted(available_timezones()), n=3)
        hint = " or ".join(close) if close else "a name like Europe/Berlin, or UTC"
        message = f"there is no time zone {name[:64]!r}; write {hint}"
        raise ScheduleError(message) from None


@dataclass(frozen=True, slots=True)
class IntervalTimetable:
    """Every so many seconds, counted from the anchor."""

    seconds: int
    anchor: datetime

    def next_fire(self, after: datetime) -> datetime | None:
        """The first multiple of the interval after that moment."""
        # Whole seconds only: APScheduler reckons in floats, and a fire time must come out the same each time.
        start = self.anchor.astimezone(UTC).replace(microsecond=0)
        trigger = IntervalTrigger(seconds=self.seconds, start_date=start, end_date=HORIZON, timezone=UTC)
        found: datetime | None = trigger.get_next_fire_time(None, _second_after(after.astimezone(UTC)))
        return found


class CronTimetable:
    """The local times of a cron expression in one zone, as moments of UTC."""

    def __init__(self, cron: Cron, zone: ZoneInfo) -> None:
        self._cron = cron
        self._zone = zone
        self._triggers = _triggers(cron)

    def next_fire(self, after: datetime) -> datetime | None:
        """The first moment after that one at which a clock on a wall there shows a time of the expression."""
        found: datetime | None = None
        # Around a jump, later local times may be earlier moments: look as far to both sides as the clock jumps.
        local = _wall(after, self._zone) - self._jump(after)
        limit: datetime | None = None
        while limit is None or local < limit:
            upcoming = self._next_local(local)
            if upcoming is None:
                break
            local = upcoming
            for moment in self._moments(local):
                if moment > after and (found is None or moment < found):
                    found, limit = moment, local + self._jump(moment)
        return found

    def _next_local(self, after: datetime) -> datetime | None:
        # APScheduler sees a wall clock that never jumps; it fires twice in autumn when it knows the zone.
        start = _second_after(after.replace(tzinfo=UTC))
        found = [trigger.get_next_fire_time(None, start) for trigger in self._triggers]
        return min((moment.replace(tzinfo=None) for moment in found if moment is not None), default=None)

    def _moments(self, local: datetime) -> list[datetime]:
        # Of a skipped time, fold 0 is the reading by the clock before the jump: later by what was skipped.
        first = local.replace(tzinfo=self._zone).astimezone(UTC)
        if not self._cron.every_hour:
            return [first]
        second = local.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        return [first, second] if second > first else [first]

    def _jump(self, moment: datetime) -> timedelta:
        """By how much the zone's clock is put forward or back near a moment; nearly always not at all."""
        moment = moment.astimezone(UTC)
        walls = [_wall(moment + shift, self._zone) - shift for shift in (-NEARBY, timedelta(0), NEARBY)]
        return max(walls) - min(walls)


def _triggers(cron: Cron) -> list[CronTrigger]:
    """One trigger; two where either kind of day is enough, which APScheduler cannot say in one."""
    days, weekdays = _listed(cron.days, 31), _listed((_monday_is_zero(day) for day in cron.weekdays), 7)
    pairs = [(days, "*"), ("*", weekdays)] if cron.either_day else [(days, weekdays)]
    return [
        CronTrigger(
            minute=_listed(cron.minutes, 60),
            hour=_listed(cron.hours, 24),
            day=day,
            month=_listed(cron.months, 12),
            day_of_week=weekday,
            timezone=UTC,
            end_date=HORIZON,
        )
        for day, weekday in pairs
    ]


def _monday_is_zero(weekday: int) -> int:
    """APScheduler 3 counts weekdays from Monday; everyone else's cron from Sunday."""
    return (weekday - 1) % 7


def _listed(numbers: Iterable[int], all_of_them: int) -> str:
    ordered = sorted(numbers)
    return "*" if len(ordered) == all_of_them else ",".join(map(str, ordered))


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _second_after(moment: datetime) -> datetime:
    return moment.replace(microsecond=0) + SECOND
