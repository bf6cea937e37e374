"""What tests do behind a platform, to the rows of PostgreSQL or to those of the twin: crashes, and time gone by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from carillon import clock
from carillon.ledger.ledger import Ledger
from carillon.platform import Platform
from carillon.testing.memory import MemoryLedger, MemoryPlatform


class Start(NamedTuple):
    priority: int
    at: datetime


async def execute(platform: Platform, statement: str, *arguments: object) -> None:
    async with platform.ledger.transaction() as connection:
        await connection.execute(statement, *arguments)


async def silence_workers(platform: Platform) -> None:
    """Let every worker have said nothing for a minute."""
    if isinstance(platform, MemoryPlatform):
        for row in platform.store.workers.values():
            row["heartbeat_at"] = clock.now() - timedelta(minutes=1)
    else:
        await execute(platform, "update carillon.workers set heartbeat_at = now() - interval '1 minute'")


async def let_buckets_fill(platform: Platform) -> None:
    """Let every bucket of starts have been full for an hour."""
    if isinstance(platform, MemoryPlatform):
        ago = clock.now() - timedelta(hours=1)
        for turn in platform.store.turns.values():
            turn["full_at"] = ago
        platform.store.buckets = dict.fromkeys(platform.store.buckets, ago)
    else:
        for table in ("turns", "buckets"):
            await execute(platform, f"update carillon.{table} set full_at = now() - interval '1 hour'")


async def let_it_have_ended(platform: Platform, run: UUID, hours: int) -> None:
    """Let an ended run have ended so many hours ago."""
    if isinstance(platform, MemoryPlatform):
        platform.store.ended[run]["ended_on"] = (clock.now() - timedelta(hours=hours)).date()
    else:
        age = timedelta(hours=hours)
        await execute(
            platform, "update carillon.runs set ended_on = (now() - $2::interval)::date where id = $1", run, age
        )


async def complete_unnoticed(platform: Platform, run: UUID, worker: UUID) -> None:
    """Let a run have completed a minute ago, without anybody who awaits it being told."""
    if isinstance(platform, MemoryPlatform):
        platform.store.bury(platform.store.live[run], "completed", worker_id=worker)
        platform.store.ended[run]["finished_at"] -= timedelta(minutes=1)
    else:
        await execute(
            platform,
            """update carillon.runs set state = 'completed', finished_at = now() - interval '1 minute', worker_id = $2,
               ended_on = (now() at time zone 'UTC')::date where id = $1""",
            run,
            worker,
        )


async def starts(platform: Platform) -> list[Start]:
    """When each run was started."""
    if isinstance(platform, MemoryPlatform):
        rows = list(platform.store.runs())
    else:
        rows = await platform.ledger.pool.fetch("select priority, started_at from carillon.runs")
    return [Start(row["priority"], row["started_at"]) for row in rows if row["started_at"] is not None]


async def row(ledger: Ledger, run: UUID) -> Mapping[str, Any]:
    if isinstance(ledger, MemoryLedger):
        return ledger.store.run(run)
    return await ledger.pool.fetchrow("select * from carillon.runs where id = $1", run)


async def attempts(ledger: Ledger, run: UUID) -> Sequence[Mapping[str, Any]]:
    """Those that did not end the run."""
    if isinstance(ledger, MemoryLedger):
        return ledger.store.attempts.get(run, [])
    return await ledger.pool.fetch("select * from carillon.attempts where run_id = $1 order by attempt", run)


async def events(ledger: Ledger, event: UUID) -> Sequence[Mapping[str, Any]]:
    if isinstance(ledger, MemoryLedger):
        return [ledger.store.events[event]] if event in ledger.store.events else []
    return await ledger.pool.fetch("select * from carillon.events where id = $1", event)


async def answering(ledger: Ledger, event: UUID) -> set[UUID]:
    """The runs that answer an event."""
    if isinstance(ledger, MemoryLedger):
        rows = [each for each in ledger.store.runs() if each["event_id"] == event]
    else:
        rows = await ledger.pool.fetch("select id from carillon.runs where event_id = $1", event)
    return {each["id"] for each in rows}


async def silence(ledger: Ledger, worker: UUID) -> None:
    """Let a worker have said nothing for an hour."""
    if isinstance(ledger, MemoryLedger):
        ledger.store.workers[worker]["heartbeat_at"] -= timedelta(hours=1)
        return
    ago = "update carillon.workers set heartbeat_at = now() - interval '1 hour' where id = $1"
    await ledger.pool.execute(ago, worker)


async def let_it_expire(ledger: Ledger, run: UUID, at: datetime) -> None:
    if isinstance(ledger, MemoryLedger):
        ledger.store.live[run]["expires_at"] = at
        return
    await ledger.pool.execute("update carillon.runs set expires_at = $2 where id = $1", run, at)


async def let_pauses_end(platform: Platform) -> None:
    """Let every open breaker have been left alone for long enough."""
    await _change_circuits(platform, "retry_at")


async def let_probes_die(platform: Platform) -> None:
    """Let every probe have been given up a second ago."""
    await _change_circuits(platform, "probe_until")


async def _change_circuits(platform: Platform, moment: str) -> None:
    if isinstance(platform, MemoryPlatform):
        ago, kept = clock.now() - timedelta(seconds=1), platform.store.breakers
        kept.update({name: replace(circuit, **{moment: ago}) for name, circuit in kept.items()})
    else:
        await execute(platform, f"update carillon.breakers set {moment} = now() - interval '1 second'")


async def let_leases_end(platform: Platform) -> None:
    """Let every effect that is under way have been leased until a second ago."""
    await _change_effects(platform, "leased_until")


async def let_results_be_old(platform: Platform) -> None:
    """Let no result of an effect have to be kept any longer."""
    await _change_effects(platform, "kept_until")


async def _change_effects(platform: Platform, moment: str) -> None:
    if isinstance(platform, MemoryPlatform):
        for row in platform.store.effects.values():
            row[moment] = clock.now() - timedelta(seconds=1)
    else:
        await execute(platform, f"update carillon.effects set {moment} = now() - interval '1 second'")


async def let_good_values_age(platform: Platform, by: timedelta) -> None:
    """Let every last good value have been kept so much earlier."""
    if isinstance(platform, MemoryPlatform):
        for row in platform.store.last_good.values():
            row |= {moment: row[moment] - by for moment in ("at", "kept_until")}
    else:
        await execute(
            platform, "update carillon.last_good set at = at - $1::interval, kept_until = kept_until - $1", by
        )


async def let_places_end(platform: Platform) -> None:
    """Let every place at a bulkhead have been leased until a second ago."""
    if isinstance(platform, MemoryPlatform):
        for row in platform.store.places.values():
            row["leased_until"] = clock.now() - timedelta(seconds=1)
    else:
        await execute(platform, "update carillon.places set leased_until = now() - interval '1 second'")


async def said_of_type(platform: Platform, type_: str) -> list[Any]:
    """The data of the events of a type, in the order in which they were recorded."""
    if isinstance(platform, MemoryPlatform):
        return [row["data"] for row in platform.store.events.values() if row["type"] == type_]
    rows = await platform.ledger.pool.fetch(
        "select data from carillon.events where type = $1 order by recorded_at, id", type_
    )
    return [row["data"] for row in rows]
