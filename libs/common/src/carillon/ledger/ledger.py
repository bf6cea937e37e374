"""The ledger's hot path: submit, start, finish, say, and the statements of the sweeper."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import asyncpg
import orjson

from carillon.errors import IdempotencyConflictError, PlatformUnavailableError
from carillon.ledger import statements as sql
from carillon.ledger.group_commit import SERVER_AWAY, GroupCommit
from carillon.ledger.records import Claimed, Delivery, Finish, NewEvent, NewRun, State, Submitted
from carillon.run import Cause

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

#: No statement of the hot path takes longer on a healthy server.
STATEMENT_DEADLINE_SECONDS = 10


async def _prepare(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda text: text, decoder=orjson.loads, format="text"
    )


async def _keep(_: object) -> None:
    """Reset nothing between two uses: no statement of ours leaves a trace in its session."""


class Ledger:
    """The truth about runs and events, written in groups.

    Use it as an async context manager. `carries_events` says whether the ledger itself is the transport of events, so
    that recording one also submits the runs that answer it.
    """

    def __init__(self, dsn: str, *, name: str, carries_events: bool, connections: int = 4) -> None:
        self._dsn = dsn
        self._name = name
        self.carries_events = carries_events
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.submit = GroupCommit(self._submit)
        self.finish = GroupCommit(self._finish)
        self.start = GroupCommit(self._start)
        self.mark_published = GroupCommit(self._mark_published)

    async def __aenter__(self) -> Self:
        try:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._connections,
                init=_prepare,
                timeout=5,
                command_timeout=STATEMENT_DEADLINE_SECONDS,
                max_inactive_connection_lifetime=60,
                reset=_keep,
                server_settings={
                    "application_name": f"carillon {self._name}",
                    # A generic plan made while the ledger was empty scans it for ever; see bench/README.md.
                    "plan_cache_mode": "force_custom_plan",
                    "jit": "off",
                },
            )
        except (*SERVER_AWAY, asyncpg.PostgresError) as error:
            message = f"PostgreSQL cannot be reached ({error}); check DATABASE_URL, or start the server"
            raise PlatformUnavailableError(message) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), 5)
            self._pool.terminate()

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """The pool that the other readers and writers of the ledger share."""
        if self._pool is None:
            message = "the ledger is not open; use it as `async with Ledger(...)`"
            raise RuntimeError(message)
        return self._pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One connection in one transaction, for what must be written together with an event."""
        async with self.pool.acquire(timeout=5) as connection, connection.transaction():
            yield connection  # type: ignore[misc]

    async def _submit(self, batch: Sequence[tuple[NewRun, bool]]) -> Sequence[Submitted | Exception]:
        """Accept runs; each comes with whether it is given to the transport right after."""
        arrays = _run_arrays([run for run, _ in batch], dispatched=[given for _, given in batch])
        accepted = await self._ids(sql.SUBMIT, *arrays)
        met = [run for run, _ in batch if run.id not in accepted]
        same = await self._same_work(met) if met else {}
        outcomes: list[Submitted | Exception] = []
        for run, _ in batch:
            if run.id in accepted:
                # Twice in one batch: the first of them made it.
                accepted.discard(run.id)
                same[run.id] = True
                outcomes.append(Submitted(run.id, created=True))
            elif same.get(run.id, True):
                outcomes.append(Submitted(run.id, created=False))
            else:
                message = f"{run.idempotency_key!r} was used before for {run.task} with other arguments; use a new key"
                outcomes.append(IdempotencyConflictError(message))
        return outcomes

    async def _same_work(self, met: Sequence[NewRun]) -> dict[UUID, bool]:
        rows = await self.pool.fetch(sql.SAME_WORK, [r.id for r in met], [r.task for r in met], [r.args for r in met])
        return {row["id"]: row["same"] for row in rows}

    async def _start(self, batch: Sequence[tuple[UUID, int, UUID]]) -> Sequence[bool]:
        """Start attempts (run, attempt, worker): whether each is this worker's to execute."""
        # One process is one worker, so one batch has one worker.
        started = await self._ids(sql.START, [b[0] for b in batch], [b[1] for b in batch], batch[0][2])
        outcomes = []
        for run, _, _ in batch:
            # Two deliveries of one attempt in one batch: only the first of them starts.
            outcomes.append(run in started)
            started.discard(run)
        return outcomes

    async def _finish(self, batch: Sequence[tuple[UUID, Finish]]) -> Sequence[bool]:
        """End attempts of one worker: whether each still was the ledger's current attempt."""
        ends = [finish for _, finish in batch]
        arrays = [
            [f.id for f in ends],
            [f.attempt for f in ends],
            [f.state.value for f in ends],
            [f.outcome for f in ends],
            [f.result for f in ends],
            [f.error for f in ends],
            [f.run_at for f in ends],
            [f.uncounted for f in ends],
        ]
        if any(f.events or not f.state.is_terminal for f in ends):
            said = [event for f in ends for event in f.events]
            answers = [run for f in ends for run in f.answers]
            done = await self._ids(
                sql.FINISH_AND_SAY, batch[0][0], *arrays, *self._event_arrays(said), *_run_arrays(answers)
            )
        else:
            done = await self._ids(sql.FINISH, batch[0][0], *arrays)
        return [finish.id in done for finish in ends]

    async def say(
        self, events: Sequence[NewEvent], answers: Sequence[NewRun], *, connection: Connection | None = None
    ) -> set[UUID]:
        """Record events, and the runs that answer them; returns the ids that were new."""
        arguments = [*self._event_arrays(events), *_run_arrays(answers)]
        return await self._ids(sql.SAY, *arguments, connection=connection)

    async def _mark_published(self, batch: Sequence[UUID]) -> Sequence[None]:
        await self.pool.execute(sql.MARK_PUBLISHED, list(batch))
        return [None] * len(batch)

    async def mark_undispatched(self, runs: Sequence[UUID]) -> None:
        """Say that the transport did not take these runs, so that the sweeper sends them."""
        await self.pool.execute(sql.MARK_UNDISPATCHED, list(runs))

    async def claim(self, domain: str, slots: int, worker: UUID) -> list[Delivery]:
        """Take and start up to `slots` due runs, where the ledger itself is the transport."""
        rows = await self.pool.fetch(sql.CLAIM, domain, slots, worker)
        return [_delivery(row, Claimed) for row in rows]

    async def take_due(self, domain: str, room: int) -> list[Delivery]:
        """Up to `room` due runs that the transport does not hold, now marked as given to it."""
        return [_delivery(row) for row in await self.pool.fetch(sql.TAKE_DUE, domain, room)]

    async def take_overdue(self, domain: str, room: int, before: object) -> list[Delivery]:
        """Up to `room` runs given to the transport before that moment and never started, now marked as given again."""
        return [_delivery(row) for row in await self.pool.fetch(sql.TAKE_OVERDUE, domain, room, before)]

    async def next_due(self, domain: str) -> float | None:
        """Seconds until the next run that waits in the ledger is due; None when there is none."""
        seconds: float | None = await self.pool.fetchval(sql.NEXT_DUE, domain)
        return seconds

    async def expire(self, domain: str) -> int:
        """Cancel runs that were not started in time; returns how many."""
        return len(await self.pool.fetch(sql.EXPIRE, domain))

    async def rescue(self, domain: str, silence: timedelta, most: int) -> int:
        """Give the runs of workers silent for that long back to the queue; fail those that lost `most` workers."""
        return len(await self.pool.fetch(sql.RESCUE, domain, silence, most))

    async def hand_back(self, worker: UUID, *, but: Sequence[UUID] = (), age: timedelta = timedelta(0)) -> int:
        """Give the runs of a worker, started at least `age` ago, back to the queue, but for those it has in hand."""
        return len(await self.pool.fetch(sql.HAND_BACK, worker, age, list(but)))

    async def forget(self, domain: str, age: timedelta) -> int:
        """Delete up to 1,000 runs of a domain that ended, and 1,000 events that were recorded, before this age."""
        runs = await self.pool.fetch(sql.FORGET_RUNS, domain, age)
        events = await self.pool.fetch(sql.FORGET_EVENTS, age)
        return len(runs) + len(events)

    async def unheard(self, domain: str, age: timedelta) -> list[asyncpg.Record]:
        """Events at least that old without the run of a task of this domain that hears them."""
        return await self.pool.fetch(sql.UNHEARD, domain, age)

    async def unpublished(self, age: timedelta, room: int) -> list[NewEvent]:
        """Events at least that old that the transport did not take."""
        rows = await self.pool.fetch(sql.UNPUBLISHED, age, room)
        return [NewEvent(**{**row, "data": orjson.dumps(row["data"]).decode()}) for row in map(dict, rows)]

    async def enrol(self, worker: UUID, domain: str, host: str, pid: int, version: str, concurrency: int) -> None:
        """Enter a worker; its heartbeat keeps its runs from being rescued."""
        await self.pool.execute(sql.ENROL, worker, domain, host, pid, version, concurrency)

    async def heartbeat(self, worker: UUID, running: int) -> bool:
        """Say that a worker lives; False when it was retired."""
        return await self.pool.fetchval(sql.HEARTBEAT, worker, running) is not None

    async def retire(self, worker: UUID) -> None:
        """Enter that a worker stopped by itself."""
        await self.pool.execute(sql.RETIRE, worker)

    async def bury_message(self, letter: UUID, domain: str, queue: str, reason: str, body: bytes, headers: str) -> None:
        """Keep a message that nobody could read."""
        await self.pool.execute(sql.BURY_MESSAGE, letter, domain, queue, reason, body, headers)

    def _event_arrays(self, events: Sequence[NewEvent]) -> list[list[Any]]:
        return [
            [e.id for e in events],
            [e.event_id for e in events],
            [e.source for e in events],
            [e.type for e in events],
            [e.subject for e in events],
            [e.time for e in events],
            [e.data for e in events],
            [e.run_id for e in events],
            [e.actor for e in events],
            [e.traceparent for e in events],
            [self.carries_events or e.published for e in events],
        ]

    async def _ids(self, statement: str, *arguments: object, connection: Connection | None = None) -> set[UUID]:
        rows = await (connection or self.pool).fetch(statement, *arguments)
        return {row["id"] for row in rows}


def _run_arrays(runs: Sequence[NewRun], dispatched: Sequence[bool] | None = None) -> list[list[Any]]:
    return [
        [r.id for r in runs],
        [r.domain for r in runs],
        [r.task for r in runs],
        [State.QUEUED.value for _ in runs],
        [r.args for r in runs],
        [orjson.dumps(r.labels).decode() if r.labels else "{}" for r in runs],
        [r.priority for r in runs],
        [r.run_at for r in runs],
        [r.expires_at for r in runs],
        list(dispatched) if dispatched is not None else [False] * len(runs),
        [r.idempotency_key for r in runs],
        [r.parent_id for r in runs],
        [r.event_id for r in runs],
        [None if r.cause is None else orjson.dumps(r.cause).decode() for r in runs],
        [r.actor for r in runs],
        [r.traceparent for r in runs],
    ]


def _delivery(row: asyncpg.Record, kind: type[Delivery] = Delivery) -> Delivery:
    return kind(
        id=row["id"],
        attempt=row["attempt"],
        uncounted=row["uncounted"],
        task=row["task"],
        args=row["args"],
        labels=row["labels"],
        cause=None if row["cause"] is None else _cause(row["cause"]),
        traceparent=row["traceparent"],
        given_at=time.time(),
    )


def _cause(kept: dict[str, str]) -> Cause:
    return Cause(kept["id"], kept["type"], kept["source"], datetime.fromisoformat(kept["time"]))
