"""What becomes of fire times: each one gets an outcome, also when nothing happened.

On time means: within the grace. Of several fire times within it the latest is fired and the others are coalesced
into it; those before it are misfired. A schedule that is paused fires nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from scheduler.timetable import Timetable, fire_times

#: Fire times of one kind that are entered one by one; the next entry then stands for all that follow.
MOST_ROWS = 100
#: A fire that is later than this says so.
NOTEWORTHY = timedelta(seconds=1)


class Outcome(StrEnum):
    """What became of a fire time."""

    FIRED = "fired"
    COALESCED = "coalesced"
    MISFIRED = "misfired"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Decision:
    """One fire time and what becomes of it; `detail` is the reason, for people."""

    fire_at: datetime
    outcome: Outcome
    detail: str | None = None


def decide(timetable: Timetable, since: datetime, now: datetime, grace: timedelta) -> list[Decision]:
    """Decide every fire time later than `since` and not later than `now`, in order; at most one is fired."""
    beginning = max(since, now - grace - timedelta(microseconds=1))
    missed = fire_times(timetable, since, beginning)
    decisions = _bounded(missed, Outcome.MISFIRED, "no scheduler decided it in time", beginning)
    on_time = list(fire_times(timetable, beginning, now))
    if not on_time:
        return decisions
    latest = on_time.pop()
    decisions += _bounded(iter(on_time), Outcome.COALESCED, f"one with the fire time {latest.isoformat()}", latest)
    late = now - latest
    detail = f"{late.total_seconds():.1f} s late" if late > NOTEWORTHY else None
    return [*decisions, Decision(latest, Outcome.FIRED, detail)]


def leave_out(timetable: Timetable, since: datetime, now: datetime, entered: int, by: str | None) -> list[Decision]:
    """Decide the fire times of a paused schedule, of which `entered` have a row since it was paused."""
    reason = f"paused by {by}" if by else "paused"
    room = MOST_ROWS - entered
    if room < 0:
        return []
    found = list(islice(fire_times(timetable, since, now), room + 1))
    decisions = [Decision(moment, Outcome.PAUSED, reason) for moment in found]
    if len(found) > room:
        decisions[-1] = Decision(found[-1], Outcome.PAUSED, f"{reason}; so are all that follow until it is resumed")
    return decisions


def _bounded(moments: Iterator[datetime], outcome: Outcome, reason: str, end: datetime) -> list[Decision]:
    """One decision each for the first; the last one stands for the rest."""
    found = list(islice(moments, MOST_ROWS + 1))
    decisions = [Decision(moment, outcome, reason) for moment in found]
    if len(found) > MOST_ROWS:
        every = f"{reason}; nor were all that follow until {end.isoformat(timespec='seconds')}"
        if outcome is Outcome.COALESCED:
            every = f"{reason}; so are all in between"
        decisions[-1] = Decision(found[-1], outcome, every)
    return decisions
