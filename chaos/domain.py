"""The domains of the fault matrix. Each has the same tasks, which do one effect and write down that they did."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import ClassVar, NoReturn

import asyncpg

from carillon import Retry, Run, Tasks
from carillon.contracts import Event
from carillon.errors import PermanentError, TransientError
from carillon.platform import Platform
from chaos.journal import Journal
from chaos.mutations import crash_point
from chaos.settings import ChaosSettings

#: Domains that take work from the client, and the one of them that hears what they say.
WORKING = ("bells", "choir")
HEARING = "choir"

EFFECTS = """
create table effects (run_id uuid primary key, answers uuid, attempt int not null, pid int not null);
create table effect_attempts (run_id uuid not null, attempt int not null, pid int not null,
                              at timestamptz not null default now());
"""
#: Every try is noted; the effect itself is there once.
APPLY = """
with tried as (insert into effect_attempts (run_id, attempt, pid) values ($1, $2, $3))
insert into effects (run_id, answers, attempt, pid) values ($1, $4, $2, $3) on conflict (run_id) do nothing
"""
#: Enough for a database that is restarted again and again.
PATIENCE = Retry(attempts=50, base=timedelta(milliseconds=200), cap=timedelta(seconds=2))


class Chimed(Event):
    """Said by a run that chimed; the choir answers."""

    type: ClassVar[str] = "chaos.chimed.v1"

    run: str


class Belfry:
    """Where the tasks leave their marks and their effects."""

    def __init__(self, journal: Journal, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._journal = journal
        self._pool = pool

    def mark(self, what: str, run: Run, ticket: str) -> None:
        """Write down that a run begins, ends or raises."""
        self._journal.write(
            what, run=str(run.id), ticket=ticket, attempt=run.attempt, pid=os.getpid(), domain=run.domain
        )

    async def strike(self, run: Run, ticket: str, milliseconds: int, *, answers: str | None = None) -> None:
        """Take that long, and leave the effect in the middle."""
        await asyncio.sleep(milliseconds / 2000)
        crash_point("in_effect", ticket)
        try:
            async with asyncio.timeout(5):
                await self._pool.execute(APPLY, run.id, run.attempt, os.getpid(), answers)
        except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
            message = f"the effects' database does not answer: {error!r}"
            raise TransientError(message) from error
        crash_point("after_effect", ticket)
        await asyncio.sleep(milliseconds / 2000)


def tasks_of(domain: str, version: int = 1) -> Tasks:
    """The tasks of one domain, as this version of it has them."""
    tasks = Tasks(domain)
    (_declare_old_ring if version == 1 else _declare_new_ring)(tasks)

    @tasks.task(retry=PATIENCE)
    async def chime(ticket: str, milliseconds: int, *, run: Run, belfry: Belfry) -> Chimed:
        """Ring, and say so.

        Safe to run twice: the effect is kept under the run's id, and so is the event.
        """
        belfry.mark("start", run, ticket)
        await belfry.strike(run, ticket, milliseconds)
        belfry.mark("end", run, ticket)
        return Chimed(run=str(run.id))

    @tasks.task(retry=Retry(attempts=1))
    async def crack(ticket: str, milliseconds: int, *, run: Run, belfry: Belfry) -> NoReturn:
        """Break, which no retry can help.

        Safe to run twice: it never works.
        """
        belfry.mark("start", run, ticket)
        await asyncio.sleep(milliseconds / 1000)
        belfry.mark("raise", run, ticket)
        message = "the bell cracked"
        raise PermanentError(message)

    @tasks.task(retry=PATIENCE)
    async def falter(ticket: str, milliseconds: int, *, run: Run, belfry: Belfry) -> int:
        """Fail the first time, and ring the next.

        Safe to run twice: the effect is kept under the run's id.
        """
        belfry.mark("start", run, ticket)
        if run.attempt == 1:
            belfry.mark("end", run, ticket)
            message = "not the first time"
            raise TransientError(message, retry_after=timedelta(milliseconds=100))
        await belfry.strike(run, ticket, milliseconds)
        belfry.mark("end", run, ticket)
        return run.attempt

    if domain == HEARING:
        _declare_sing(tasks)
    return tasks


async def _ring(ticket: str, milliseconds: int, run: Run, belfry: Belfry) -> int:
    belfry.mark("start", run, ticket)
    await belfry.strike(run, ticket, milliseconds)
    belfry.mark("end", run, ticket)
    return run.attempt


def _declare_old_ring(tasks: Tasks) -> None:
    @tasks.task(retry=PATIENCE, default=True)
    async def ring(ticket: str, milliseconds: int, *, run: Run, belfry: Belfry) -> int:
        """Ring a bell.

        Safe to run twice: the effect is kept under the run's id.
        """
        return await _ring(ticket, milliseconds, run, belfry)


def _declare_new_ring(tasks: Tasks) -> None:
    @tasks.task(retry=PATIENCE, default=True)
    async def ring(ticket: str, milliseconds: int, loud: bool = False, *, run: Run, belfry: Belfry) -> int:  # noqa: ARG001
        """Ring a bell, loudly where the caller says so.

        Safe to run twice: the effect is kept under the run's id.
        """
        return await _ring(ticket, milliseconds, run, belfry)

    @tasks.task(retry=PATIENCE)
    async def peal(ticket: str, milliseconds: int, *, run: Run, belfry: Belfry) -> int:
        """Ring all bells; the version before this one could not.

        Safe to run twice: the effect is kept under the run's id.
        """
        return await _ring(ticket, milliseconds, run, belfry)


def _declare_sing(tasks: Tasks) -> None:
    @tasks.hears(Chimed, retry=PATIENCE)
    async def sing(event: Chimed, *, run: Run, belfry: Belfry) -> str:
        """Answer a chime.

        Safe to hear twice: the effect is kept under the run's id, which comes from the event.
        """
        belfry.mark("start", run, "")
        await belfry.strike(run, "", 2, answers=event.run)
        belfry.mark("end", run, "")
        return event.run


def belfry(settings: ChaosSettings) -> Callable[[Platform], AbstractAsyncContextManager[Mapping[type, object]]]:
    """The resources of every domain."""

    @asynccontextmanager
    async def resources(_: Platform) -> AsyncIterator[Mapping[type, object]]:
        async with asyncpg.create_pool(settings.effects_url, min_size=1, max_size=4, timeout=5) as pool:
            yield {Belfry: Belfry(Journal(settings.executions), pool)}

    return resources
