"""One round: the schedules that need a decision, decided, in one transaction with the events that they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from carillon.telemetry.traces import current_traceparent
from scheduler import store
from scheduler.decisions import Decision
from scheduler.errors import ScheduleError
from scheduler.plan import Plan, plan
from scheduler.store import Fire

if TYPE_CHECKING:
    from carillon.cloudevents import Envelope
    from carillon.ledger.records import NewEvent
    from carillon.platform import Platform

#: Between two statements of a round nothing slow happens; a process that was stopped there gives its rows back.
SILENCE_SECONDS = 8


class Said(NamedTuple):
    """The event of one fire, with the root span of everything that follows from it."""

    plan: Plan
    fired: Decision
    envelope: Envelope
    event: NewEvent
    span: Span


class Result(NamedTuple):
    """What a round did: `full` when there may be more to do at once."""

    fires: Sequence[Fire]
    events: Sequence[NewEvent]
    #: Why schedules could not be followed, by `schedule@revision`.
    broken: dict[str, str]
    full: bool
    next_due: datetime | None


class Round:
    """Decides up to `most` schedules at a time."""

    def __init__(self, platform: Platform, grace: timedelta) -> None:
        self._platform = platform
        self._grace = grace
        self._tracer = trace.get_tracer(__name__)

    async def decide(self, now: datetime, epoch: int, skip: Sequence[str], most: int) -> Result:
        """Decide what is due now; everything is written, or nothing is. `skip` holds `schedule@revision`."""
        async with self._platform.ledger.transaction() as connection:
            await store.guard(connection, SILENCE_SECONDS)
            rows = await store.due(connection, now, epoch, skip, most)
            plans, broken = self._plans(rows, now)
            said = [self._say(one, one.fired) for one in plans if one.fired is not None]
            try:
                fires, events = await self._write(connection, plans, said, now)
            except BaseException as error:
                _end(said, error)
                raise
            upcoming = await store.next_due(connection, now)
        _end(said)
        return Result(fires, events, broken, full=len(rows) == most, next_due=upcoming)

    def _plans(self, rows: Sequence[store.Row], now: datetime) -> tuple[list[Plan], dict[str, str]]:
        plans, broken = [], {}
        for row in rows:
            try:
                made = plan(row, now, self._grace)
                # An envelope that could not be said is found here, where it harms no other schedule.
                made.envelope(made.advance.next_fire_at)
                plans.append(made)
            except (ScheduleError, ValueError, OverflowError) as error:
                broken[f"{row['name']}@{row['revision']}"] = str(error)
        return plans, broken

    def _say(self, made: Plan, fired: Decision) -> Said:
        span = self._tracer.start_span(
            f"fire {made.schedule}",
            context=Context(),
            kind=SpanKind.PRODUCER,
            attributes={"carillon.schedule": made.schedule, "carillon.fire_at": fired.fire_at.isoformat()},
            start_time=int(fired.fire_at.timestamp()) * 10**9,
        )
        with trace.use_span(span):
            envelope = made.envelope(fired.fire_at, current_traceparent())
        return Said(made, fired, envelope, envelope.new_event(actor="scheduler"), span)

    async def _write(
        self, connection: store.Connection, plans: Sequence[Plan], said: Sequence[Said], now: datetime
    ) -> tuple[list[Fire], list[NewEvent]]:
        ids = {one.plan.schedule: one.event.id for one in said}
        fires = [
            Fire(one.schedule, made, ids[one.schedule] if made is one.fired else None)
            for one in plans
            for made in one.decisions
        ]
        new = await store.enter(connection, fires) if fires else set()
        fresh = [one for one in said if (one.plan.schedule, one.fired.fire_at) in new]
        if fresh:
            answers = await self._platform.answers([one.envelope for one in fresh])
            await self._platform.ledger.say([one.event for one in fresh], answers, connection=connection)
        if put_back := [one.schedule for one in plans if one.put_back]:
            await store.forget_ahead(connection, put_back, now)
        if plans:
            await store.advance(connection, [one.advance for one in plans])
        return [f for f in fires if (f.schedule, f.decision.fire_at) in new], [one.event for one in fresh]


def _end(said: Sequence[Said], error: BaseException | None = None) -> None:
    for one in said:
        if error is not None:
            one.span.set_status(Status(StatusCode.ERROR, repr(error)))
        one.span.end()


def utc_now() -> datetime:
    """The wall clock. Rounds begin with it, and with nothing else."""
    return datetime.now(UTC)
