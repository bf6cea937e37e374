"""What ran: the history of tasks for programs and tasks of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from carillon.errors import InvalidArgumentsError, NotConnectedError
from carillon.ledger.history import History, Row
from carillon.ledger.search import Cursor, Search
from carillon.ledger.statistics import Statistics, Window
from carillon.ledger.typed import in_reach
from carillon.platform import open_platforms
from carillon.stored_results import StoredResults


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedTask:
    """A task that was submitted once, as a list shows it."""

    task_id: str
    task_name: str
    domain: str
    #: pending, queued, running, retrying, paused, completed, failed, cancelled or partial.
    status: str
    labels: dict[str, str]
    #: The number of the current or last attempt, from 1 on.
    attempt: int
    created_at: datetime
    #: Of the last attempt.
    started_at: datetime | None
    finished_at: datetime | None
    #: In one line.
    error: str | None

    @property
    def duration_seconds(self) -> float | None:
        """How long the last attempt took; None while there is none that ended."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class Tracker:
    """Reads the history. Lists are newest first and have at most 500 tasks; go on with `after` and the last of them.

    Each call is one short read, and raises `SearchTooWideError` where it would take longer than seconds.
    """

    def __init__(self, history: History, stored: StoredResults) -> None:
        self._history = history
        self._stored = stored

    async def get_recent_tasks(self, limit: int = 100, *, after: TrackedTask | None = None) -> list[TrackedTask]:
        """The newest tasks, whatever became of them."""
        return await self.find(limit=limit, after=after)

    async def get_tasks_by_status(
        self, status: str, limit: int = 100, *, after: TrackedTask | None = None
    ) -> list[TrackedTask]:
        """The newest tasks of a status; raises `InvalidArgumentsError` for one that does not exist."""
        return await self.find(states=(status,), limit=limit, after=after)

    async def get_tasks_in_range(
        self, start: datetime, end: datetime, limit: int = 500, *, after: TrackedTask | None = None
    ) -> list[TrackedTask]:
        """Tasks submitted at or after `start` and before `end`; moments without a time zone are this machine's."""
        return await self.find(since=_moment("start", start), until=_moment("end", end), limit=limit, after=after)

    async def find(self, *, after: TrackedTask | None = None, **search: Any) -> list[TrackedTask]:
        """Tasks by any of the filters of `carillon.ledger.search.Search`; raises `InvalidArgumentsError`."""
        place = None if after is None else Cursor(after.created_at, UUID(after.task_id))
        return [_tracked(row) for row in await self._history.search(Search(after=place, **search))]

    async def get_task(self, task_id: str) -> dict[str, Any] | None:
        """All that is known of one task, with its `attempts`; None when nobody knows it any more.

        A result that lies in storage is read from there; raises `carillon.stored_results.ResultGoneError` where it is
        not there any more.
        """
        try:
            run = await self._history.run(UUID(str(task_id)))
        except ValueError:
            message = f"{task_id!r:.100} is no id of a task; ids look like 0198f0c1-0000-7000-8000-000000000000"
            raise InvalidArgumentsError(message) from None
        if run is None:
            return None
        attempts: Sequence[Row] = await self._history.attempts(run["id"])
        return {**run, "result": await self._stored.value(run["id"], run["result"]), "attempts": attempts}

    async def get_statistics(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        task: str | None = None,
        domain: str | None = None,
    ) -> Statistics:
        """Counts, rates and spreads of what ended from `start` on and before `end`; the last day, where not said."""
        until = datetime.now(UTC) if end is None else _moment("end", end)
        since = until - timedelta(days=1) if start is None else _moment("start", start)
        return await self._history.statistics(Window(since=since, until=until, task=task, domain=domain))


def get_tracker() -> Tracker:
    """The history of the platform that this process is connected to.

    Raises `NotConnectedError` outside `async with carillon.connect(...)` and outside a service. Where a process has
    several platforms open, it is the one that was opened last.
    """
    if not open_platforms:
        message = "there is no history to ask; enter `async with carillon.connect():` first, or run inside a service"
        raise NotConnectedError(message)
    return Tracker(open_platforms[-1].history, open_platforms[-1].stored_results)


def _moment(argument: str, given: datetime) -> datetime:
    try:
        return in_reach(given if given.tzinfo is not None else given.astimezone(UTC))
    except (ValueError, OverflowError):
        message = f"{argument} is {given}; name a moment from 1970 on"
        raise InvalidArgumentsError(message) from None


def _tracked(row: Row) -> TrackedTask:
    same = ("domain", "labels", "attempt", "created_at", "started_at", "finished_at", "error")
    return TrackedTask(
        task_id=str(row["id"]), task_name=row["task"], status=row["state"], **{name: row[name] for name in same}
    )
