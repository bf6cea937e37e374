"""The catalogue: which tasks there are, what they take, hear and say. Domains write it, the gateway reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import structlog
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.ledger.audit import Actor, Entry, record
from carillon.ledger.records import Priority
from carillon.ledger.statements.limits import GATE_AGAIN, LOCK
from carillon.ledger.tables import buckets, domains, event_types, tasks, turns

log = structlog.get_logger(__name__)

Row = Mapping[str, Any]

_GATE_LOCK = LOCK.replace("pg_try_", "pg_").replace("$1", ":domain")
_GATE_AGAIN = GATE_AGAIN.replace("$1", ":domain").replace("$2::text", "cast(:changed as text)")


class Hearer(NamedTuple):
    """A task that answers a type of event."""

    name: str
    domain: str
    #: What its owner declared for every run of it.
    labels: Mapping[str, str] = MappingProxyType({})
    priority: int = Priority.NORMAL

    @classmethod
    def of(cls, row: Row) -> Self:
        """As a task is registered."""
        policy = row["policy"]
        return cls(row["name"], row["domain"], policy.get("labels", {}), policy.get("priority", Priority.NORMAL))


#: What is known of tasks is read again after this time. A listener that registers meanwhile is found by its sweeper; to
#: a task that changed or is gone one submits as before for this long, and its worker checks the arguments anyway.
FRESH_SECONDS = 2.0


class Catalogue:
    """What is registered."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[str, Row] = {}
        self._hearers: dict[str, list[Hearer]] = {}
        #: The types of event that workflows wait for.
        self._awaited: set[str] = set()
        self._stale_at = float("-inf")
        self._reading = asyncio.Lock()

    async def hearers(self, event_type: str, domain: str | None = None) -> list[Hearer]:
        """The tasks that hear a type, in all domains or in one, as known within the last two seconds."""
        try:
            await self._keep_fresh()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("catalogue not read", error=repr(error))
        found = self._hearers.get(event_type, [])
        return found if domain is None else [hearer for hearer in found if hearer.domain == domain]

    async def is_awaited(self, event_type: str) -> bool:
        """Whether workflows wait for events of a type, as known within the last two seconds."""
        # After `hearers`, which every event is asked for, it is fresh.
        await self.hearers(event_type)
        return event_type in self._awaited

    async def task(self, name: str) -> Row | None:
        """One task, as known within the last two seconds; one that was not known then is looked for at once."""
        await self._keep_fresh()
        if name in self._known:
            return self._known[name]
        rows = await self._all(select(tasks).where(tasks.c.name == name))
        return rows[0] if rows else None

    async def refresh(self) -> None:
        """Read all tasks again."""
        rows = await self.tasks()
        hearers: dict[str, list[Hearer]] = {}
        for row in rows:
            if row["hears"] is not None:
                hearers.setdefault(row["hears"], []).append(Hearer.of(row))
        self._awaited = {event_type for row in rows for event_type in awaited_by(row)}
        self._known = {row["name"]: row for row in rows}
        self._hearers = hearers
        self._stale_at = time.monotonic() + FRESH_SECONDS

    async def _keep_fresh(self) -> None:
        if time.monotonic() < self._stale_at:
            return
        async with self._reading:
            # Whoever waited here for another reader has what that one read.
            if time.monotonic() >= self._stale_at:
                await self.refresh()

    async def register(
        self,
        domain: str,
        declared: Sequence[Row],
        types: Sequence[Row],
        asyncapi: Mapping[str, Any],
        *,
        limit: int | None = None,
    ) -> None:
        """Enter what a domain's workers offer, and take out what they no longer do.

        A task keeps the moment of its first registration: events before it are not its to answer. Tasks that come and
        go, and policies and limits that change, are audited. `limit` is how many runs of the whole domain may be at its
        workers; with one, runs of all its tasks wait until they are let in.

        Where limits change, what was let in and has not started waits again and is let in by the new ones.
        """
        async with self._engine.begin() as connection:
            # Locks the domain's row, so that nobody else registers meanwhile.
            await connection.execute(
                insert(domains)
                .values(name=domain)
                .on_conflict_do_update(index_elements=["name"], set_={"registered_at": func.now()})
            )
            entries = await _changes(connection, domain, declared, limit)
            await connection.execute(
                update(domains).where(domains.c.name == domain).values(asyncapi=asyncapi, concurrency=limit)
            )
            names = [row["name"] for row in declared]
            await connection.execute(delete(tasks).where(tasks.c.domain == domain, tasks.c.name.not_in(names)))
            for each in declared:
                row = {**each, "limits": kept_limits(each, limit)}
                statement = insert(tasks).values(domain=domain, **row)
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=["name"], set_={"domain": domain, **row})
                )
            for contract in types:
                statement = insert(event_types).values(**contract)
                await connection.execute(statement.on_conflict_do_update(index_elements=["type"], set_=dict(contract)))
            for entry in entries:
                if changes_limits(entry):
                    await _begin_limits_anew(connection, domain, entry.subject)
            await record(connection, *entries)
        await self.refresh()

    async def tasks(self) -> list[Row]:
        """All tasks, by name."""
        return await self._all(select(tasks).order_by(tasks.c.name))

    async def tasks_of(self, domain: str) -> list[Row]:
        """The tasks of one domain, its default one first."""
        query = select(tasks).where(tasks.c.domain == domain).order_by(tasks.c.is_default.desc(), tasks.c.name)
        return await self._all(query)

    async def event_type(self, event_type: str) -> Row | None:
        """The contract of a type of event."""
        rows = await self._all(select(event_types).where(event_types.c.type == event_type))
        return rows[0] if rows else None

    async def event_types(self) -> list[Row]:
        """All contracts, by type."""
        return await self._all(select(event_types).order_by(event_types.c.type))

    async def domains(self) -> list[Row]:
        """All domains with their AsyncAPI documents."""
        return await self._all(select(domains).order_by(domains.c.name))

    async def _all(self, query: Any) -> list[Row]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]


def awaited_by(task: Row) -> Sequence[str]:
    """The types of event that a task waits for, if it is a workflow."""
    types: Sequence[str] = task["policy"].get("workflow", {}).get("awaits", ())
    return types


def kept_limits(task: Row, of_domain: int | None) -> Row | None:
    """What the ledger goes by when it accepts a run of the task: null says that nothing limits it."""
    limits: Row | None = task["policy"].get("limits")
    return {} if limits is None and of_domain is not None else limits


def changes_limits(entry: Entry) -> bool:
    """Whether other limits hold from now on for the subject of this entry, a task or a domain."""
    if entry.action == "task.policy_changed":
        return bool(entry.details["before"].get("limits") != entry.details["after"].get("limits"))
    return entry.action == "queue.limit_changed"


async def _begin_limits_anew(connection: AsyncConnection, domain: str, changed: str) -> None:
    """Let in by what is registered now: what was let in before and has not started, and as if nothing had yet."""
    # Whoever lets in by the old ones has done so before.
    await connection.execute(text(_GATE_LOCK), {"domain": domain})
    await connection.execute(text(_GATE_AGAIN), {"domain": domain, "changed": changed})
    for table in (turns, buckets):
        await connection.execute(delete(table).where(table.c.task == changed))


async def _changes(connection: AsyncConnection, domain: str, declared: Sequence[Row], limit: int | None) -> list[Entry]:
    """What registering these tasks changes. The domain's row is locked, so nobody else registers meanwhile."""
    query = select(tasks.c.name, tasks.c.policy).where(tasks.c.domain == domain)
    before: dict[str, Any] = {row.name: row.policy for row in await connection.execute(query)}
    after: dict[str, Any] = {row["name"]: row["policy"] for row in declared}
    limited = (await connection.execute(select(domains.c.concurrency).where(domains.c.name == domain))).scalar_one()
    return registered(domain, (limited, before), (limit, after))


def registered(
    domain: str, was: tuple[int | None, Mapping[str, Any]], is_: tuple[int | None, Mapping[str, Any]]
) -> list[Entry]:
    """What is told of a registration: the limit of the domain and the policies of its tasks, before and after."""
    (limited, before), (limit, after) = was, is_
    actor, entries = Actor.process(domain), []
    if limited != limit:
        entries.append(actor.did("queue.limit_changed", domain, before=limited, after=limit))
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            entries.append(actor.did("task.added", name, policy=after[name]))
        elif name not in after:
            entries.append(actor.did("task.removed", name, policy=before[name]))
        elif before[name] != after[name]:
            entries.append(actor.did("task.policy_changed", name, before=before[name], after=after[name]))
    return entries
