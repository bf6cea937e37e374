"""Reading the ledger: single runs, searches page by page, and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, func, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.ledger.tables import attempts, dead_letters, events, runs, workers

Row = Mapping[str, Any]

#: What a list shows of a run; arguments, result and error are in its details.
SUMMARY = (
    "id", "domain", "task", "state", "labels", "priority", "attempt", "run_at", "created_at", "started_at",
    "finished_at", "event_id", "parent_id", "actor",
)  # fmt: skip
#: No page is larger.
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class RunCount:
    """How many runs of a task reached a state in one hour, and how long they executed in all."""

    bucket: datetime
    task: str
    state: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EventCount:
    """How many events of a type were recorded in one hour."""

    bucket: datetime
    type: str
    count: int


class Cursor(NamedTuple):
    """Where the next page begins: after this row."""

    created_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which runs; every part that is set must hold."""

    states: Sequence[str] = ()
    domain: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Newest first, after this row.
    after: Cursor | None = None
    limit: int = 50


class History:
    """Questions to the ledger. Each is one short read."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, id: UUID) -> Row | None:  # noqa: A002
        """All that is known of a run, but for its attempts."""
        return await self._one(select(runs).where(runs.c.id == id))

    async def attempts(self, id: UUID) -> list[Row]:  # noqa: A002
        """The ended attempts of a run, first to last. The one that ended the run is told by the run's own row."""
        query = select(attempts).where(attempts.c.run_id == id).order_by(attempts.c.attempt)
        found, run = await self._all(query), await self.run(id)
        return found if run is None else [*found, *_last_attempt(run)]

    async def event(self, id: UUID) -> Row | None:  # noqa: A002
        """One event by the ledger's id."""
        return await self._one(select(events).where(events.c.id == id))

    async def said_by(self, run: UUID) -> list[Row]:
        """The events that a run said."""
        return await self._all(
            select(events).where(events.c.run_id == run).order_by(events.c.recorded_at).limit(MOST_ROWS)
        )

    async def answers_to(self, event: UUID) -> list[Row]:
        """The runs that answer an event."""
        return await self._all(_summary().where(runs.c.event_id == event).limit(MOST_ROWS))

    async def search(self, search: Search) -> list[Row]:
        """One page of runs, newest first."""
        query = _summary().where(*_conditions(search))
        if search.after is not None:
            query = query.where(tuple_(runs.c.created_at, runs.c.id) < tuple_(*search.after))
        query = query.order_by(runs.c.created_at.desc(), runs.c.id.desc())
        return await self._all(query.limit(min(search.limit, MOST_ROWS)))

    async def recent_events(self, limit: int = 50) -> list[Row]:
        """The newest events."""
        query = select(events).order_by(events.c.recorded_at.desc(), events.c.id.desc())
        return await self._all(query.limit(min(limit, MOST_ROWS)))

    async def count_by_state(self, since: datetime) -> list[Row]:
        """How many runs of each domain are in each state: all that have not ended, and those made since."""
        waiting = runs.c.state.in_(("queued", "retrying", "running", "pending", "paused"))
        query = select(runs.c.domain, runs.c.state, func.count().label("count"))
        return await self._all(
            query.where(or_(waiting, runs.c.created_at >= since)).group_by(runs.c.domain, runs.c.state)
        )

    async def live_workers(self) -> list[Row]:
        """Workers that have not retired, with the seconds since they were last heard."""
        silence = func.extract("epoch", func.now() - workers.c.heartbeat_at).label("silent_seconds")
        fresh = workers.c.heartbeat_at > func.now() - text("interval '10 minutes'")
        query = select(workers, silence).where(workers.c.stopped_at.is_(None), fresh)
        return await self._all(query.order_by(workers.c.domain, workers.c.started_at).limit(MOST_ROWS))

    async def dead_letters(self, limit: int = 50) -> list[Row]:
        """The newest messages that nobody could read."""
        query = select(dead_letters).order_by(dead_letters.c.received_at.desc())
        return await self._all(query.limit(min(limit, MOST_ROWS)))

    async def count_runs_by_hour(self, since: datetime, until: datetime) -> list[RunCount]:
        """Ended runs by the hour (UTC) in which they ended, since <= end < until."""
        bucket = _hour(runs, "finished_at")
        seconds = func.coalesce(func.sum(func.extract("epoch", runs.c.finished_at - runs.c.started_at)), 0)
        query = (
            select(bucket, runs.c.task, runs.c.state, func.count(), seconds)
            .where(runs.c.finished_at >= since, runs.c.finished_at < until)
            .group_by(bucket, runs.c.task, runs.c.state)
        )
        async with self._engine.connect() as connection:
            return [RunCount(b, t, s, n, float(secs)) for b, t, s, n, secs in await connection.execute(query)]

    async def count_events_by_hour(self, since: datetime, until: datetime) -> list[EventCount]:
        """Events by the hour (UTC) in which they were recorded, since <= recorded < until."""
        bucket = _hour(events, "recorded_at")
        query = (
            select(bucket, events.c.type, func.count())
            .where(events.c.recorded_at >= since, events.c.recorded_at < until)
            .group_by(bucket, events.c.type)
        )
        async with self._engine.connect() as connection:
            return [EventCount(*row) for row in await connection.execute(query)]

    async def _one(self, query: Select[Any]) -> Row | None:
        rows = await self._all(query)
        return rows[0] if rows else None

    async def _all(self, query: Select[Any]) -> list[Row]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]


def _last_attempt(run: Row) -> list[Row]:
    """The attempt that ended a run; there is none when the run lives, or ended while it waited."""
    if run["finished_at"] is None or run["worker_id"] is None or run["started_at"] is None:
        return []
    lost = (run["error"] or {}).get("type") == "WorkerLost"
    names = ("attempt", "worker_id", "started_at", "finished_at", "error", "log")
    told = {name: run[name] for name in names}
    return [{"run_id": run["id"], "outcome": "lost" if lost else run["state"], **told}]


def _summary() -> Select[Any]:
    error = runs.c.error["message"].astext.label("error")
    return select(*(runs.c[name] for name in SUMMARY), error)


def _conditions(search: Search) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if search.states:
        found.append(runs.c.state.in_(search.states))
    if search.domain is not None:
        found.append(runs.c.domain == search.domain)
    if search.task is not None:
        found.append(runs.c.task == search.task)
    if search.since is not None:
        found.append(runs.c.created_at >= search.since)
    if search.until is not None:
        found.append(runs.c.created_at < search.until)
    if search.labels:
        found.append(and_(runs.c.labels.contains(dict(search.labels))))
    return found


def _hour(table: Table, column: str) -> ColumnElement[datetime]:
    return func.date_trunc("hour", table.c[column], "UTC").label("bucket")
