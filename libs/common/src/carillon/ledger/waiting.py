"""Which limit a gated run waits for, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB

from carillon.ledger.statements.limits import WHY

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_WHY = text(WHY).columns(limits=JSONB)


async def awaited_limit(engine: AsyncEngine, run: UUID) -> str | None:
    """What a run waits for, like `a limit of kitchen.cook: 2 of 2 runs`; None for a run that waits for no limit."""
    async with engine.connect() as connection:
        found = (await connection.execute(_WHY, {"run": run})).mappings().one_or_none()
    return None if found is None else in_words(dict(found))


def in_words(found: Mapping[str, Any]) -> str:
    """The sentence about what a waiting run is measured by, as `WHY` finds it."""
    limits: Mapping[str, Any] = found["limits"] or {}
    name, key = found["task"], f"{limits.get('key')}={found['gate']}"
    if found["of_domain"] is not None and found["in_domain"] >= found["of_domain"]:
        return f"a limit of the domain {found['domain']}: {found['in_domain']} of {found['of_domain']} runs"
    if found["in_task"] >= limits.get("concurrency", float("inf")):
        return f"a limit of {name}: {found['in_task']} of {limits['concurrency']} runs"
    if found["in_key"] >= limits.get("per_key", float("inf")):
        return f"a limit of {name}: {found['in_key']} of {limits['per_key']} runs with {key}"
    for seconds, rate, whose in (
        (found["rate_seconds"], limits.get("rate"), name),
        (found["key_rate_seconds"], limits.get("rate_per_key"), f"{name} with {key}"),
    ):
        if rate is not None and seconds is not None and seconds > 0:
            per = f"{rate['number']} starts in {rate['per_seconds']:g} s"
            return f"the rate of {whose}: {per}, the next in {seconds:.1f} s"
    return f"its turn at the limits of {name}"
