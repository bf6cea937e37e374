"""Faults of PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import UUID

from redis.asyncio import Redis

from carillon.platform import Platform
from carillon.worker.results import Results, results_of
from chaos import collecting
from chaos.evidence import TERMINAL
from chaos.hand import settings_of
from chaos.scenarios.scenario import BOTH, POSTGRES, RABBITMQ, Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from chaos.stage import Stage

#: What a program that asks for results sets.
WITH_REDIS = {"TASK_RESULT_BACKEND": "redis"}
#: Nobody waits longer for Redis than a second, and then asks the ledger.
MOST_ANSWER_SECONDS = 4.0


async def restart_postgres(stage: Stage, **plan: Any) -> None:
    """PostgreSQL is restarted at once, without a checkpoint, again and again."""
    async with stage.under_load(**plan):
        for number in range(stage.profile.restarts):
            if number:
                await asyncio.sleep(stage.profile.restart_every)
            await stage.servers.restart_postgres()
            stage.faults["PostgreSQL restarted"] += 1


async def lose_redis(stage: Stage) -> None:
    """Redis is paused, emptied and stopped; every accepted id still answers."""
    async with stage.under_load(env=WITH_REDIS), _results(stage) as results:
        asking = asyncio.create_task(_ask(stage, results))
        try:
            await _trouble_redis(stage)
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
    await _expect_results(stage)


async def _trouble_redis(stage: Stage) -> None:
    valkey, pause = stage.servers.valkey, stage.profile.fault / 2
    async with Redis.from_url(valkey.url) as redis:
        await redis.client_pause(int(pause * 1000), True)
        stage.faults["Redis paused"] += 1
    await asyncio.sleep(pause)
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
        stage.faults["Redis emptied"] += 1
    await valkey.stop()
    stage.faults["Redis stopped"] += 1
    try:
        await asyncio.sleep(pause)
    finally:
        await valkey.start()


@asynccontextmanager
async def _results(stage: Stage) -> AsyncIterator[Results]:
    settings = settings_of(stage).model_copy(update={"task_result_backend": "redis"})
    async with Platform(settings, name="chaos asks") as platform:
        results = results_of(platform)
        try:
            yield results
        finally:
            await results.shutdown()


async def _ask(stage: Stage, results: Results) -> None:
    """Ask for runs that were accepted, as long as the fault lasts."""
    while True:
        _, answers = collecting.asked(stage.settings)
        accepted = [answer.run for answer in answers if answer.status == "accepted" and answer.run]
        began = time.monotonic()
        try:
            await results.is_result_ready(stage.dice.choice(accepted))
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller had no answer
            stage.broken.append(f"asked for a result and got {error!r}")
        took = time.monotonic() - began
        stage.faults["questions"] += 1
        stage.expect(took <= MOST_ANSWER_SECONDS, f"an answer took {took:.1f} s")
        await asyncio.sleep(0.1)


async def _expect_results(stage: Stage) -> None:
    """Every run that was accepted and has ended has its result."""
    ended = {row.id for row in await collecting.runs(stage.ledger_url) if row.state in TERMINAL}
    async with _results(stage) as results:
        for run in sorted(ended):
            try:
                await results.get_result(str(UUID(run)))
            except Exception as error:  # noqa: BLE001 - whatever it was, the result is lost to the caller
                stage.broken.append(f"{run} has no result: {error!r}")


SCENARIOS = (
    Scenario(
        "F21", "PostgreSQL is restarted at once, again and again", restart_postgres, BOTH, quick=RABBITMQ, alone=True
    ),
    Scenario("F20", "Redis is paused, emptied and stopped", lose_redis, BOTH, quick=POSTGRES),
)
