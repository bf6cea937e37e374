"""Reading in memory: single runs and events, the catalogue, and who did what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn, cast
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon import clock
from carillon.ledger.audit import Audit, AuditSearch
from carillon.ledger.audit_chain import spelled
from carillon.ledger.catalogue import Catalogue, Hearer, awaited_by, changes_limits, kept_limits, registered
from carillon.ledger.changes import CONCERNING, Change, changes
from carillon.ledger.graph import Box, graph
from carillon.ledger.history import MOST_ROWS, SUMMARY, History
from carillon.ledger.pages import with_current_progress
from carillon.ledger.schedules import Schedule, Schedules
from carillon.ledger.steps import SeenWorkflow, StepPlace, assembled, seen_steps
from carillon.ledger.waiting import in_words
from carillon.testing.memory.counts import begin_anew, measured
from carillon.testing.memory.steps import open_decisions, seen_rows
from carillon.testing.memory.store import Row, Store, copied, refuse

#: Workers that were silent for longer are not shown.
SHOWN = timedelta(minutes=10)


class _NoEngine:
    """Stands where an engine would be, and says that there is none."""

    def connect(self) -> NoReturn:
        refuse("SQL, and so no searches, counts or schedules")

    begin = connect

    async def dispose(self) -> None:
        """Nothing to close."""


def no_engine() -> AsyncEngine:
    """What is in the place of SQLAlchemy's engine."""
    return cast(AsyncEngine, _NoEngine())


class MemoryHistory(History):
    """What is known of single runs and events. Searches, pages and counts are questions to SQL, and are refused."""

    def __init__(self, store: Store) -> None:
        super().__init__(no_engine())
        self._store = store

    async def run(self, id: UUID) -> Row | None:  # noqa: A002
        """All that is known of a run, but for its attempts."""
        row = self._store.run(id)
        return None if row is None else with_current_progress(copied(row))

    async def attempts(self, id: UUID) -> list[Mapping[str, Any]]:  # noqa: A002
        """The ended attempts of a run, first to last."""
        row = self._store.run(id)
        return [] if row is None else [*self._store.attempts_of(row)]

    async def changes(self, id: UUID) -> list[Change]:  # noqa: A002
        """Everything that happened to a run, first to last; nothing for a run that nobody knows."""
        run = await self.run(id)
        if run is None:
            return []
        until = run["finished_at"] or clock.now()
        entries = [
            {"at": at, "action": entry.action, "actor": entry.actor.name, "reason": entry.reason}
            for at, entry in reversed(self._store.audit)
            if entry.action in CONCERNING
            and (
                entry.subject == str(id)
                or (entry.subject in {run["task"], run["domain"]} and run["created_at"] <= at <= until)
            )
        ]
        replays = sorted((r for r in self._store.runs() if r["replay_of"] == id), key=lambda r: r["created_at"])
        return changes(run, await self.attempts(id), entries, await self.said_by(id), replays)

    async def workflow(self, id: UUID, *, after: int = 0, limit: int = MOST_ROWS) -> SeenWorkflow | None:  # noqa: A002
        """The workflow that a run is, with at most 500 of its steps, those after a number."""
        run = await self.run(id)
        if run is None or (run["wake_at"] is None and "workflow" not in self._policy(run["task"])):
            return None
        rows = seen_rows(self._store, run)
        later = [row for row in rows if row["seq"] > after]
        seen = next((row["saw"] for row in reversed(rows) if row["seq"] <= after and any(row["saw"])), ())
        wanted = min(limit, MOST_ROWS)
        counts = Counter((row["kind"], row["state"]) for row in rows)
        return assembled(run, seen_steps(later[:wanted], seen), counts, more=len(later) > wanted)

    async def graph(self, workflow: UUID) -> list[Box]:
        """The steps of a workflow as boxes."""
        run = await self.run(workflow)
        return [] if run is None else graph(seen_steps(seen_rows(self._store, run)))

    async def decisions(self, after: StepPlace | None = None, limit: int = MOST_ROWS) -> list[Mapping[str, Any]]:
        """What workflows ask people: approvals and repairs, those first that wait longest."""
        rows = open_decisions(self._store)
        later = [row for row in rows if after is None or (row["at"], row["workflow_id"], row["seq"]) > after]
        return [*later[: min(limit, MOST_ROWS)]]

    def _policy(self, task: str) -> Mapping[str, Any]:
        policy: Mapping[str, Any] = self._store.tasks.get(task, {}).get("policy", {})
        return policy

    async def event(self, id: UUID) -> Row | None:  # noqa: A002
        """One event by the ledger's id."""
        row = self._store.events.get(id)
        return None if row is None else copied(row)

    async def said_by(self, run: UUID) -> list[Mapping[str, Any]]:
        """The events that a run said."""
        return [copied(row) for row in self._store.events.values() if row["run_id"] == run]

    async def answers_to(self, event: UUID) -> list[Mapping[str, Any]]:
        """The runs that answer an event."""
        return [_summary(row) for row in self._store.runs() if row["event_id"] == event]

    async def awaited_limit(self, run: UUID) -> str | None:
        """What a gated run waits for, like `a limit of kitchen.cook: 2 of 2 runs`; None for any other run."""
        return self.limit_of(run)

    def limit_of(self, run: UUID) -> str | None:
        """The same for whoever cannot await."""
        found = measured(self._store, run)
        return None if found is None else in_words(found)

    async def count_by_state(self, since: datetime) -> list[Mapping[str, Any]]:
        """How many runs of each domain are in each state: all that have not ended, and those made since."""
        counts: dict[tuple[str, str], int] = {}
        for row in self._store.runs():
            if row["finished_at"] is None or row["created_at"] >= since:
                key = row["domain"], row["state"]
                counts[key] = counts.get(key, 0) + 1
        return [{"domain": domain, "state": state, "count": count} for (domain, state), count in counts.items()]

    async def heard_of(self, worker: UUID | None) -> datetime | None:
        """When a worker last said that it lives; None for one that is forgotten."""
        row = None if worker is None else self._store.workers.get(worker)
        return None if row is None else row["heartbeat_at"]

    async def live_workers(self) -> list[Mapping[str, Any]]:
        """Workers that have not retired, with the seconds since they were last heard."""
        now = clock.now()
        fresh = [
            row
            for row in self._store.workers.values()
            if row["stopped_at"] is None and row["heartbeat_at"] > now - SHOWN
        ]
        fresh.sort(key=lambda row: (row["domain"], row["started_at"]))
        return [row | {"silent_seconds": (now - row["heartbeat_at"]).total_seconds()} for row in fresh]


class MemoryCatalogue(Catalogue):
    """The tasks and contracts that are registered. The AsyncAPI documents are not kept."""

    def __init__(self, store: Store) -> None:
        super().__init__(no_engine())
        self._store = store

    async def hearers(self, event_type: str, domain: str | None = None) -> list[Hearer]:
        """The tasks that hear a type, in all domains or in one."""
        rows = [row for row in self._store.tasks.values() if row["hears"] == event_type]
        return [Hearer.of(row) for row in rows if domain in {None, row["domain"]}]

    async def is_awaited(self, event_type: str) -> bool:
        """Whether workflows wait for events of a type."""
        return any(event_type in awaited_by(row) for row in self._store.tasks.values())

    async def task(self, name: str) -> Row | None:
        """One task."""
        row = self._store.tasks.get(name)
        return None if row is None else copied(row)

    async def tasks(self) -> list[Mapping[str, Any]]:
        """All tasks, by name."""
        return [copied(self._store.tasks[name]) for name in sorted(self._store.tasks)]

    async def refresh(self) -> None:
        """Nothing to read again."""

    async def register(
        self,
        domain: str,
        declared: Sequence[Mapping[str, Any]],
        types: Sequence[Mapping[str, Any]],
        asyncapi: Mapping[str, Any],  # noqa: ARG002 - shown by a gateway only
        *,
        limit: int | None = None,
    ) -> None:
        """Enter what a domain offers, and take out what it no longer does."""
        store = self._store
        before = {name: row for name, row in store.tasks.items() if row["domain"] == domain}
        was = store.domains.get(domain), {name: row["policy"] for name, row in before.items()}
        for name in before:
            del store.tasks[name]
        for row in declared:
            first = before.get(row["name"], {"registered_at": clock.now()})["registered_at"]
            kept = {"domain": domain, "limits": kept_limits(row, limit), "registered_at": first}
            store.tasks[row["name"]] = dict(row) | kept
        store.types |= {row["type"]: dict(row) for row in types}
        store.domains[domain] = limit
        for entry in registered(domain, was, (limit, {row["name"]: row["policy"] for row in declared})):
            if changes_limits(entry):
                begin_anew(store, domain, entry.subject)
            store.record(entry)


class MemoryAudit(Audit):
    """Who did what. Nothing is chained, so there is nothing to verify."""

    def __init__(self, store: Store) -> None:
        super().__init__(no_engine())
        self._store = store

    async def page(self, search: AuditSearch) -> list[Mapping[str, Any]]:
        """Entries of a subject, newest first; another search is refused."""
        if search != AuditSearch(subject=search.subject, limit=search.limit):
            refuse("searches of the audit trail but by subject")
        found: list[Mapping[str, Any]] = [
            dict(entry.values(), seq=seq, at=spelled(at), details=orjson.loads(orjson.dumps(entry.details)))
            for seq, (at, entry) in enumerate(self._store.audit, start=1)
            if search.subject in {None, entry.subject}
        ]
        return list(reversed(found))[: search.limit]


class MemorySchedules(Schedules):
    """No schedules: the scheduler's clock reads SQL."""

    def __init__(self) -> None:
        super().__init__(no_engine())

    async def ship(self, owner: str, defaults: Sequence[Schedule]) -> None:  # noqa: ARG002
        """Refuse, where there are any."""
        if defaults:
            refuse("schedules")


def _summary(row: Row) -> Row:
    return copied({name: row[name] for name in SUMMARY} | {"error": (row["error"] or {}).get("message")})
