"""The catalogue: which tasks there are, what they take, hear and say. Domains write it, the gateway reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.ledger.audit import Actor, Entry, record
from carillon.ledger.tables import domains, event_types, tasks

log = structlog.get_logger(__name__)

Row = Mapping[str, Any]


class Hearer(NamedTuple):
    """A task that answers a type of event."""

    name: str
    domain: str


#: What is known of tasks is read again after this time. A listener that registers meanwhile is found by its sweeper; to
#: a task that changed or is gone one submits as before for this long, and its worker checks the arguments anyway.
FRESH_SECONDS = 2.0


class Catalogue:
    """What is registered."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: dict[str, Row] = {}
        self._hearers: dict[str, list[Hearer]] = {}
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
                hearers.setdefault(row["hears"], []).append(Hearer(row["name"], row["domain"]))
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
    ) -> None:
        """Enter what a domain's workers offer, and take out what they no longer do.

        A task keeps the moment of its first registration: events before it are not its to answer. Tasks that come and
        go, and policies that change, are audited.
        """
        async with self._engine.begin() as connection:
            await connection.execute(
                insert(domains)
                .values(name=domain, asyncapi=asyncapi)
                .on_conflict_do_update(
                    index_elements=["name"], set_={"asyncapi": asyncapi, "registered_at": func.now()}
                )
            )
            entries = await _changes(connection, domain, declared)
            names = [row["name"] for row in declared]
            await connection.execute(delete(tasks).where(tasks.c.domain == domain, tasks.c.name.not_in(names)))
            for row in declared:
                statement = insert(tasks).values(domain=domain, **row)
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=["name"], set_={"domain": domain, **row})
                )
            for row in types:
                statement = insert(event_types).values(**row)
                await connection.execute(statement.on_conflict_do_update(index_elements=["type"], set_=dict(row)))
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


async def _changes(connection: AsyncConnection, domain: str, declared: Sequence[Row]) -> list[Entry]:
    """What registering these tasks changes. The domain's row is locked, so nobody else registers meanwhile."""
    query = select(tasks.c.name, tasks.c.policy).where(tasks.c.domain == domain)
    before: dict[str, Any] = {row.name: row.policy for row in await connection.execute(query)}
    after: dict[str, Any] = {row["name"]: row["policy"] for row in declared}
    actor, entries = Actor.process(domain), []
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            entries.append(actor.did("task.added", name, policy=after[name]))
        elif name not in after:
            entries.append(actor.did("task.removed", name, policy=before[name]))
        elif before[name] != after[name]:
            entries.append(actor.did("task.policy_changed", name, before=before[name], after=after[name]))
    return entries
