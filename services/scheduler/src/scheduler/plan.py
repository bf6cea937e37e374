"""What is to be written about one schedule that needs a decision: its fires, the event, and when it is due next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from carillon.cloudevents import Envelope
from scheduler.decisions import Decision, Outcome, decide, leave_out
from scheduler.errors import ScheduleError
from scheduler.store import Advance, Row
from scheduler.timetable import timetable_of

SOURCE = "/carillon/scheduler"
#: A schedule decided further ahead than this was decided by a clock that has been put back.
DRIFT = timedelta(minutes=1)
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions about one schedule, at most one of which fires."""

    schedule: str
    decisions: list[Decision]
    advance: Advance
    event_type: str
    event_data: dict[str, object]
    #: Whether a clock that has been put back since decided it last; what that one left out is to be forgotten.
    put_back: bool

    @property
    def fired(self) -> Decision | None:
        """The decision that says the event."""
        return next((made for made in self.decisions if made.outcome is Outcome.FIRED), None)

    def envelope(self, fire_at: datetime, traceparent: str | None = None) -> Envelope:
        """The event of a fire. Its id is the schedule and the fire time, so there cannot be two of one fire."""
        return Envelope(
            id=f"{self.schedule}@{fire_at.isoformat()}",
            source=SOURCE,
            type=self.event_type,
            traceparent=traceparent,
            data=self.event_data,
        )


def plan(row: Row, now: datetime, grace: timedelta) -> Plan:
    """Decide what one schedule's row asks for now; raises `ScheduleError` when it cannot be followed."""
    timetable = timetable_of(
        cron=row["cron"],
        interval_seconds=row["interval_seconds"],
        timezone=row["timezone"],
        anchor=row["anchor"],
    )
    put_back = row["last_fire_at"] is not None and row["last_fire_at"] > now + DRIFT
    since = now if put_back else _decided_until(row)
    if row["paused_at"] is None:
        decisions = decide(timetable, since, now, grace)
    else:
        decisions = leave_out(timetable, since, now, row["paused_fires"], row["paused_by"])
    upcoming = timetable.next_fire(max(now, since))
    if upcoming is None:
        message = f"the schedule {row['name']!r} will never fire again; delete it, or change when it fires"
        raise ScheduleError(message)
    last = decisions[-1].fire_at if decisions else None if put_back else row["last_fire_at"]
    advance = Advance(row["name"], last, upcoming)
    return Plan(row["name"], decisions, advance, row["event_type"], row["event_data"], put_back)


def _decided_until(row: Row) -> datetime:
    """Whoever resumes or changes a schedule sets its next fire time to that moment: before it nothing is expected."""
    since: datetime = row["created_at"] if row["next_fire_at"] is None else row["next_fire_at"] - INSTANT
    return since.astimezone(UTC)
