"""Reading the ledger: single runs, searches page by page, and counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, func, literal_column, or_, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.ledger.changes import CONCERNING, Change, changes
from carillon.ledger.graph import Box, graph
from carillon.ledger.pages import MOST_ROWS, PROGRESS, SUMMARY, Row, page, with_current_progress
from carillon.ledger.search import Cursor, Search
from carillon.ledger.statistics import Statistics, Window, statistics
from carillon.ledger.steps import SeenWorkflow, StepPlace, all_steps, open_decisions, seen_workflow, workflow_names
from carillon.ledger.tables import attempts, audit, dead_letters, events, needs, runs, workers
from carillon.ledger.waiting import awaited_limit
from carillon.workflows.records import MOST_STEPS

__all__ = [
    "MOST_ROWS", "SUMMARY", "Box", "Change", "Cursor", "EventCount", "History", "Row", "RunCount", "Search",
    "SeenWorkflow", "StepPlace",
]  # fmt: skip


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


class History:
    """Questions to the ledger. Each is one short read."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, id: UUID) -> Row | None:  # noqa: A002
        """All that is known of a run, but for its attempts."""
        row = await self._one(select(runs).where(runs.c.id == id))
        return None if row is None else with_current_progress(row)

    async def attempts(self, id: UUID) -> list[Row]:  # noqa: A002
        """The ended attempts of a run, first to last, and of many the newest.

        The one that ended the run is told by the run's own row.
        """
        query = select(attempts).where(attempts.c.run_id == id).order_by(attempts.c.attempt.desc())
        found, run = await self._all(query.limit(MOST_ROWS)), await self.run(id)
        return found[::-1] if run is None else [*found[::-1], *last_attempt(run)]

    async def changes(self, id: UUID) -> list[Change]:  # noqa: A002
        """Everything that happened to a run, first to last; nothing for a run that nobody knows.

        Of attempts, of what operators did, of events said and of replays, the newest 500 each.
        """
        run = await self.run(id)
        if run is None:
            return []
        meanwhile = and_(
            audit.c.subject.in_((run["task"], run["domain"])),
            audit.c.at.between(run["created_at"], func.coalesce(run["finished_at"], func.now())),
        )
        entries = (
            select(audit)
            .where(audit.c.action.in_(CONCERNING), or_(audit.c.subject == str(id), meanwhile))
            .order_by(audit.c.seq.desc())
        )
        return changes(
            run,
            await self.attempts(id),
            await self._all(entries.limit(MOST_ROWS)),
            await self.said_by(id),
            await self.replays_of(id),
        )

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

    async def children(self, run: UUID) -> list[Row]:
        """The runs that a run submitted, the first ones."""
        query = _summary().where(runs.c.parent_id == run).order_by(runs.c.created_at, runs.c.id)
        return await self._all(query.limit(MOST_ROWS))

    async def replays_of(self, run: UUID) -> list[Row]:
        """The runs that repeat a run, oldest first."""
        query = _summary().where(runs.c.replay_of == run).order_by(runs.c.created_at)
        return await self._all(query.limit(MOST_ROWS))

    async def needs_of(self, run: UUID) -> list[Row]:
        """The runs that a run waits or waited for, with how they ended; those that are still awaited come first."""
        query = select(needs.c.on_id.label("id"), runs.c.task, runs.c.state, needs.c.outcome)
        joined = query.outerjoin(runs, runs.c.id == needs.c.on_id).where(needs.c.run_id == run)
        return await self._all(joined.order_by(needs.c.outcome.is_not(None), needs.c.on_id).limit(MOST_ROWS))

    async def awaited_limit(self, run: UUID) -> str | None:
        """What a gated run waits for, like `a limit of kitchen.cook: 2 of 2 runs`; None for any other run."""
        return await awaited_limit(self._engine, run)

    async def workflow(self, id: UUID, *, after: int = 0, limit: int = MOST_ROWS) -> SeenWorkflow | None:  # noqa: A002
        """The workflow that a run is, with at most 500 of its steps, those after a number.

        None for a run that is no workflow, or that nobody knows.
        """
        run = await self.run(id)
        return None if run is None else await seen_workflow(self._engine, run, after=after, limit=limit)

    async def graph(self, workflow: UUID) -> list[Box]:
        """The steps of a workflow as boxes, at most 200, many of one kind in one; see `carillon.ledger.graph`."""
        return graph(await all_steps(self._engine, workflow, MOST_STEPS))

    async def workflows(self, search: Search) -> list[Row]:
        """One page of runs that are workflows, newest first; raises as `search` does."""
        names = [name for name in await workflow_names(self._engine) if search.task in {None, name}]
        found = [row for name in names for row in await self.search(replace(search, task=name))]
        found.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
        return found[: search.limit]

    async def decisions(self, after: StepPlace | None = None, limit: int = MOST_ROWS) -> list[Row]:
        """What workflows ask people, at most 500: approvals and repairs, those first that wait longest."""
        return await open_decisions(self._engine, after, limit)

    async def search(self, search: Search) -> list[Row]:
        """One page of runs, newest first. Raises `SearchTooWideError` when it takes longer than two seconds."""
        return await page(self._engine, search)

    async def statistics(self, window: Window) -> Statistics:
        """What ended in a window, and what lives now; see `carillon.ledger.statistics`."""
        return await statistics(self._engine, window)

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

    async def worker_names(self, ids: Collection[UUID]) -> dict[UUID, str]:
        """Host and process of workers, retired or not; one that is forgotten is left out."""
        query = select(workers.c.id, workers.c.host, workers.c.pid).where(workers.c.id.in_(ids))
        return {row["id"]: f"{row['host']}, process {row['pid']}" for row in (await self._all(query) if ids else [])}

    async def heard_of(self, worker: UUID | None) -> datetime | None:
        """When a worker last said that it lives, which it does every two seconds; None for one that is forgotten."""
        row = await self._one(select(workers.c.heartbeat_at).where(workers.c.id == worker))
        return None if row is None else row["heartbeat_at"]

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
            .where(runs.c.ended_on.between(since.astimezone(UTC).date(), until.astimezone(UTC).date()))
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


def last_attempt(run: Row) -> list[Row]:
    """The attempt that ended a run; there is none when the run lives, or ended while it waited."""
    if run["finished_at"] is None or run["worker_id"] is None or run["started_at"] is None:
        return []
    lost = (run["error"] or {}).get("type") == "WorkerLost"
    names = ("attempt", "worker_id", "started_at", "finished_at", "error", "log")
    told = {name: run[name] for name in names}
    return [{"run_id": run["id"], "outcome": "lost" if lost else run["state"], **told}]


def _summary() -> Select[Any]:
    error = runs.c.error["message"].astext.label("error")
    progress = literal_column(PROGRESS.format("carillon.runs"), JSONB).label("progress")
    return select(*(runs.c[name] for name in SUMMARY), error, progress)


def _hour(table: Table, column: str) -> ColumnElement[datetime]:
    return func.date_trunc("hour", table.c[column], "UTC").label("bucket")
