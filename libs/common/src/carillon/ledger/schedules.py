"""Schedules and their fires, as rows: the scheduler decides from them, everyone else steers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import case, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from carillon.contracts import Event
from carillon.errors import ConfigurationError
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


class Schedules:
    """The schedules as rows. Every change raises `revision`, by which the scheduler notices it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ship(self, owner: str, defaults: Sequence[Schedule]) -> None:
        """Enter a service's default schedules; those that exist stay as people left them."""
        async with self._engine.begin() as connection:
            for schedule in defaults:
                await connection.execute(
                    insert(schedules)
                    .values(
                        name=schedule.name,
                        cron=schedule.cron,
                        interval_seconds=schedule.every and int(schedule.every.total_seconds()),
                        timezone=schedule.timezone,
                        event_type=schedule.event.type,
                        event_data=schedule.event.model_dump(mode="json"),
                        owner=owner,
                    )
                    .on_conflict_do_nothing()
                )

    async def all(self) -> list[Row]:
        """All schedules, by name."""
        return await self._all(select(schedules).order_by(schedules.c.name).limit(MOST_ROWS))

    async def get(self, name: str) -> Row | None:
        """One schedule."""
        rows = await self._all(select(schedules).where(schedules.c.name == name))
        return rows[0] if rows else None

    async def pause(self, name: str, by: str) -> bool:
        """Let it not fire until it is resumed; pausing twice is pausing once. False when there is no such schedule."""
        paused = {"paused_at": func.coalesce(schedules.c.paused_at, func.now())}
        return await self._change(name, paused_by=func.coalesce(schedules.c.paused_by, by), **paused)

    async def resume(self, name: str) -> bool:
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
        was_paused = schedules.c.paused_at.is_not(None)
        resumed = {"next_fire_at": case((was_paused, func.now()), else_=schedules.c.next_fire_at)}
        statement = update(schedules).where(schedules.c.name == name)
        async with self._engine.begin() as connection:
            await connection.execute(entered.on_conflict_do_nothing())
            result = await connection.execute(
                statement.values(paused_at=None, paused_by=None, revision=schedules.c.revision + 1, **resumed)
            )
        return result.rowcount == 1

    async def fires(self, name: str, limit: int = 50) -> list[Row]:
        """The newest fires of a schedule, and why some did not happen."""
        query = select(fires).where(fires.c.schedule == name).order_by(fires.c.fire_at.desc())
        return await self._all(query.limit(min(limit, MOST_ROWS)))

    async def _change(self, name: str, **values: object) -> bool:
        statement = update(schedules).where(schedules.c.name == name)
        async with self._engine.begin() as connection:
            result = await connection.execute(statement.values(revision=schedules.c.revision + 1, **values))
        return result.rowcount == 1

    async def _all(self, query: Any) -> list[Row]:
        async with self._engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
