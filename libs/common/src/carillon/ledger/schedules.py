"""Schedules and their fires, as rows: the scheduler decides from them, everyone else steers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Update, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.contracts import Event
from carillon.errors import ConfigurationError
from carillon.ledger.audit import Actor, Entry, record
from carillon.ledger.tables import fires, schedules

Row = Mapping[str, Any]
MOST_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When an event should be said: either a cron expression or an interval."""

    name: str
    event: Event
    cron: str | None = None
    every: timedelta | None = None
    timezone: str = "UTC"
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a schedule without exactly one trigger."""
        if (self.cron is None) == (self.every is None):
            message = f"the schedule {self.name!r} needs either cron=... or every=..."
            raise ConfigurationError(message)
        if self.every is not None and self.every < timedelta(seconds=1):
            message = f"the schedule {self.name!r} would fire every {self.every}; the least is one second"
            raise ConfigurationError(message)

    def columns(self) -> dict[str, Any]:
        """What it is, as a row has it."""
        return {
            "cron": self.cron,
            "interval_seconds": self.every and int(self.every.total_seconds()),
            "timezone": self.timezone,
            "event_type": self.event.type,
            "event_data": self.event.model_dump(mode="json"),
        }


class Schedules:
    """The schedules as rows. Every change raises `revision`, by which the scheduler notices it, and is audited."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ship(self, owner: str, defaults: Sequence[Schedule]) -> None:
        """Enter the schedules that a service comes with, and take out those that it no longer does.

        One that exists stays as people left it, until the service ships it otherwise than before. What this changes is
        audited; a pause outlasts it.
        """
        actor = Actor.process(owner)
        async with self._engine.begin() as connection:
            # By name, so that two who ship at once wait for each other at most in one direction.
            shipped = sorted(defaults, key=lambda schedule: schedule.name)
            entries = [await _ship(connection, actor, owner, schedule) for schedule in shipped]
            entries += await _take_out(connection, actor, owner, [schedule.name for schedule in shipped])
            await record(connection, *(entry for entry in entries if entry is not None))

    async def all(self) -> list[Row]:
        """All schedules, by name."""
        return await self._all(select(schedules).order_by(schedules.c.name).limit(MOST_ROWS))

    async def get(self, name: str) -> Row | None:
        """One schedule."""
        rows = await self._all(select(schedules).where(schedules.c.name == name))
        return rows[0] if rows else None

    async def pause(self, name: str, actor: Actor, reason: str | None = None) -> bool:
        """Let it not fire until it is resumed; pausing twice is pausing once. False when there is no such schedule."""
        entry = actor.did("schedule.paused", name, reason)
        statement = _changing(name).where(schedules.c.paused_at.is_(None))
        async with self._engine.begin() as connection:
            changed = await connection.execute(statement.values(paused_at=func.now(), paused_by=actor.name))
            if changed.rowcount:
                await record(connection, entry)
            return bool(changed.rowcount) or await _exists(connection, name)

    async def resume(self, name: str, actor: Actor, reason: str | None = None) -> bool:
        """Let it fire again, from now on. False when there is no such schedule.

        The fire time that the scheduler has not decided yet, if one passed meanwhile, is entered as paused, so that
        each expected fire has its row. `next_fire_at` becomes now, from where the scheduler computes it.
        """
        undecided = select(
            schedules.c.name,
            schedules.c.next_fire_at,
            literal("paused"),
            literal("paused; so are all that follow until it was resumed"),
        ).where(schedules.c.name == name, schedules.c.paused_at.is_not(None), schedules.c.next_fire_at <= func.now())
        entered = insert(fires).from_select(["schedule", "fire_at", "outcome", "detail"], undecided.with_for_update())
        entry = actor.did("schedule.resumed", name, reason)
        statement = _changing(name).where(schedules.c.paused_at.is_not(None))
        async with self._engine.begin() as connection:
            await connection.execute(entered.on_conflict_do_nothing())
            resumed = statement.values(paused_at=None, paused_by=None, next_fire_at=func.now())
            changed = await connection.execute(resumed)
            if changed.rowcount:
                await record(connection, entry)
            return bool(changed.rowcount) or await _exists(connection, name)

    async def fires(self, name: str, limit: int = 50) -> list[Row]:
        """The newest fires of a schedule, and why some did not happen."""
        query = select(fires).where(fires.c.schedule == name).order_by(fires.c.fire_at.desc())
        return await self._all(query.limit(min(limit, MOST_ROWS)))

    async def _all(self, query: Any) -> list[Row]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]


def _changing(name: str) -> Update:
    return update(schedules).where(schedules.c.name == name).values(revision=schedules.c.revision + 1)


async def _ship(connection: AsyncConnection, actor: Actor, owner: str, schedule: Schedule) -> Entry | None:
    """Enter one schedule, or change it if its service ships it otherwise than before; returns what that was."""
    definition = schedule.columns()
    made = insert(schedules).values(name=schedule.name, owner=owner, shipped=definition, **definition)
    if (await connection.execute(made.on_conflict_do_nothing())).rowcount:
        return actor.did("schedule.created", schedule.name, **definition)
    query = select(schedules).where(schedules.c.name == schedule.name).with_for_update()
    found = (await connection.execute(query)).mappings().one_or_none()
    if found is None or found["owner"] != owner or found["shipped"] == definition:
        return None
    if found["shipped"] is None:
        # Of a row from before there was this column nobody knows whether people changed it.
        await connection.execute(update(schedules).where(schedules.c.name == schedule.name).values(shipped=definition))
        return None
    before = {name: found[name] for name in definition}
    # Before this moment nothing is expected of the changed schedule.
    changed = _changing(schedule.name).values(shipped=definition, next_fire_at=func.now(), **definition)
    await connection.execute(changed)
    return actor.did("schedule.changed", schedule.name, before=before, after=definition)


async def _take_out(connection: AsyncConnection, actor: Actor, owner: str, kept: Sequence[str]) -> list[Entry]:
    """Remove what a service shipped once and no longer does; schedules that people made stay."""
    obsolete = delete(schedules).where(
        schedules.c.owner == owner, schedules.c.shipped.is_not(None), schedules.c.name.not_in(kept)
    )
    rows = await connection.execute(obsolete.returning(schedules.c.name, schedules.c.shipped))
    return [actor.did("schedule.removed", name, **shipped) for name, shipped in sorted(rows.all())]


async def _exists(connection: AsyncConnection, name: str) -> bool:
    return (await connection.execute(select(schedules.c.name).where(schedules.c.name == name))).first() is not None
