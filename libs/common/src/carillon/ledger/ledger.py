"""The ledger's hot path: submit, start, finish, say, and the statements of the sweeper."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import UUID

import asyncpg
import orjson

from carillon.errors import OTHER_WORK, IdempotencyConflictError, PlatformUnavailableError
from carillon.ledger import days
from carillon.ledger.admission import Admission
from carillon.ledger.arrays import end_arrays, event_arrays, retry_arrays, run_arrays
from carillon.ledger.circuits import Circuits
from carillon.ledger.conditions import Conditions
from carillon.ledger.dead_letters import MOST_KEPT_BYTES, DeadLetters
from carillon.ledger.effects import Effects
from carillon.ledger.followups import CallBack, Followups
from carillon.ledger.forks import Forks
from carillon.ledger.group_commit import LINGER_SECONDS, SERVER_AWAY, GroupCommit
from carillon.ledger.last_good import LastGood
from carillon.ledger.places import Places
from carillon.ledger.records import Claimed, Delivery, Finish, NewEvent, NewRun, Submitted, cause_of
from carillon.ledger.replays import Replays
from carillon.ledger.selections import FORGET, Selections
from carillon.ledger.statements import accept, execute, sweep
from carillon.ledger.steering import Steering
from carillon.ledger.turns import Turns
from carillon.ledger.workflows import Workflows

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

#: No statement of the hot path takes longer on a healthy server.
STATEMENT_DEADLINE_SECONDS = 10


class End(NamedTuple):
    """What came of an end.

    Whether it applied, because the attempt still was the current one; whether somebody awaits it; and whether limits
    count the run, so that another may be let in.
    """

    applied: bool
    awaited: bool = False
    limited: bool = False


class Ended(NamedTuple):
    """How many runs a sweep moved, and which of them ended and are awaited."""

    moved: int
    awaited: Sequence[UUID] = ()


def other_work(run: NewRun) -> IdempotencyConflictError:
    """The error for a run whose idempotency key was used before for something else."""
    message = f"{run.idempotency_key!r} was used before for {run.task} with {OTHER_WORK}; use a new key"
    return IdempotencyConflictError(message)


async def _nobody_to_call(_: object, __: object) -> Callable[[], Awaitable[None]]:
    message = "this ledger was opened without a way to call back; open a Platform"
    raise RuntimeError(message)


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

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        carries_events: bool,
        call_back: CallBack | None = None,
        connections: int = 4,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._name = name
        self.carries_events = carries_events
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.submit = GroupCommit(self._submit, linger=linger)
        self.finish = GroupCommit(self._finish, linger=linger)
        self.start = GroupCommit(self._start, linger=linger)
        self.progress = GroupCommit(self._progress, linger=linger)
        self.mark_published = GroupCommit(self._mark_published, linger=linger)
        self.admission = Admission(self)
        self.conditions = Conditions(self)
        self.followups = Followups(self, call_back or _nobody_to_call)
        self.steering = Steering(self)
        self.replays = Replays(self)
        self.selections = Selections(self)
        self.circuits = Circuits(self)
        self.effects = Effects(self)
        self.last_good = LastGood(self)
        self.turns = Turns(self)
        self.places = Places(self)
        self.dead_letters = DeadLetters(self)
        self.workflows = Workflows(self, linger=linger)
        self.forks = Forks(self)

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
                    # A plan that reads the whole table was made while it was small, and is used when it is large.
                    "enable_seqscan": "off",
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
        return await self.accept(batch, self.pool)

    async def accept(
        self, batch: Sequence[tuple[NewRun, bool]], connection: Connection | asyncpg.Pool[asyncpg.Record]
    ) -> Sequence[Submitted | Exception]:
        """Accept runs on a connection, perhaps as part of a transaction; one outcome for each, in order."""
        arrays = run_arrays([run for run, _ in batch], dispatched=[given for _, given in batch])
        accepted = {row["id"]: row["given"] for row in await connection.fetch(accept.SUBMIT, *arrays)}
        met = [run for run, _ in batch if run.id not in accepted]
        same = await self.same_work(met, connection) if met else {}
        outcomes: list[Submitted | Exception] = []
        for run, _ in batch:
            if run.id in accepted:
                # Twice in one batch: the first of them made it.
                outcomes.append(Submitted(run.id, created=True, given=accepted.pop(run.id)))
                same[run.id] = True
            elif same.get(run.id, True):
                outcomes.append(Submitted(run.id, created=False))
            else:
                outcomes.append(other_work(run))
        return outcomes

    async def same_work(
        self, met: Sequence[NewRun], connection: Connection | asyncpg.Pool[asyncpg.Record] | None = None
    ) -> dict[UUID, bool]:
        """Of runs whose id was accepted before: whether it was the same task, arguments, and what else is covered."""
        parts = zip(*((run.id, run.task, run.args, run.covered) for run in met), strict=True)
        rows = await (connection or self.pool).fetch(accept.SAME_WORK, *map(list, parts))
        return {row["id"]: row["same"] for row in rows}

    async def outcome(self, run: UUID) -> Mapping[str, Any] | None:
        """State, result, error, labels and seconds of execution of a run; None for an unknown one."""
        row = await self.pool.fetchrow(execute.OUTCOME, run)
        return None if row is None else dict(row)

    async def _start(self, batch: Sequence[tuple[UUID, int, UUID]]) -> Sequence[bool]:
        """Start attempts (run, attempt, worker): whether each is this worker's to execute."""
        # One process is one worker, so one batch has one worker.
        runs, attempts, workers = zip(*sorted(batch), strict=True)
        rows = await self.pool.fetch(execute.START, runs, attempts, workers[0])
        started = {(row["id"], row["attempt"]) for row in rows}
        outcomes = []
        for run, attempt, _ in batch:
            # Two deliveries of one attempt in one batch: only the first of them starts.
            outcomes.append((run, attempt) in started)
            started.discard((run, attempt))
        return outcomes

    async def _finish(self, batch: Sequence[tuple[UUID, Finish]]) -> Sequence[End]:
        """End attempts of one worker."""
        worker, ends = batch[0][0], [finish for _, finish in batch]
        ended = await self._end(worker, ends)
        missed = [finish for finish in ends if finish.id not in ended]
        if missed:
            # A row that somebody changed while the statement looked at it may have slipped between its parts.
            ended |= await self._end(worker, missed)
        return [ended.get(finish.id, End(applied=False)) for finish in ends]

    async def _end(self, worker: UUID, ends: Sequence[Finish]) -> dict[UUID, End]:
        ends = sorted(ends, key=lambda finish: finish.id)
        arrays, has_steps = end_arrays(ends), any(f.is_step for f in ends)
        statement = execute.FINISH_STEPS if has_steps else execute.FINISH
        if any(f.events or not f.state.is_terminal for f in ends):
            said = [event for f in ends for event in f.events]
            answers = [run for f in ends for run in f.answers]
            statement = execute.FINISH_STEPS_AND_SAY if has_steps else execute.FINISH_AND_SAY
            arrays += [
                *retry_arrays(ends), *event_arrays(said, published=self.carries_events), *run_arrays(answers)
            ]  # fmt: skip
        rows = await self.pool.fetch(statement, worker, *arrays)
        return {row["id"]: End(applied=True, awaited=row["awaited"], limited=row["limited"]) for row in rows}

    async def _progress(self, batch: Sequence[tuple[UUID, UUID, int, str]]) -> Sequence[None]:
        """Write how far attempts are (worker, run, attempt, JSON)."""
        workers, runs, attempts, reports = zip(*sorted(batch, key=lambda report: report[1]), strict=True)
        await self.pool.execute(execute.PROGRESS, workers[0], runs, attempts, reports)
        return [None] * len(batch)

    async def say(
        self, events: Sequence[NewEvent], answers: Sequence[NewRun], *, connection: Connection | None = None
    ) -> set[UUID]:
        """Record events, and the runs that answer them; returns the ids that were new."""
        arguments = [*event_arrays(events, published=self.carries_events), *run_arrays(answers)]
        return await self._ids(accept.SAY, *arguments, connection=connection)

    async def _mark_published(self, batch: Sequence[UUID]) -> Sequence[None]:
        await self.pool.execute(accept.MARK_PUBLISHED, list(batch))
        return [None] * len(batch)

    async def mark_undispatched(self, runs: Sequence[UUID]) -> None:
        """Say that the transport did not take these runs, so that the sweeper sends them."""
        await self.pool.execute(sweep.MARK_UNDISPATCHED, list(runs))

    async def claim(self, domain: str, slots: int, worker: UUID, *, patient: int = 0) -> list[Delivery]:
        """Take and start up to `slots` due runs, where the ledger itself is the transport.

        `patient` of the slots go to those that wait longest, whatever their priority.
        """
        rows = await self.pool.fetch(execute.CLAIM, domain, slots, worker, patient)
        return [_delivery(row, Claimed) for row in rows]

    async def take_due(self, domain: str, priority: int, room: int) -> list[Delivery]:
        """Up to `room` due runs that the transport does not hold, now marked as given to it."""
        return [_delivery(row) for row in await self.pool.fetch(sweep.TAKE_DUE, domain, priority, room)]

    async def take_overdue(self, domain: str, priority: int, room: int, before: datetime) -> list[Delivery]:
        """Up to `room` runs given to the transport before that moment and never started, now marked as given again."""
        return [_delivery(row) for row in await self.pool.fetch(sweep.TAKE_OVERDUE, domain, priority, room, before)]

    async def take_back(self, domain: str) -> int:
        """Let what another transport was given wait in the ledger again; returns how many runs that were."""
        return len(await self.pool.fetch(sweep.TAKE_BACK, domain))

    async def next_due(self, domain: str) -> float | None:
        """Seconds until the next run that waits in the ledger is due; None when there is none."""
        seconds: float | None = await self.pool.fetchval(execute.NEXT_DUE, domain)
        return seconds

    async def expire(self, domain: str) -> Ended:
        """Cancel runs that were not started in time."""
        return await self._ended(sweep.EXPIRE, domain)

    async def rescue(self, domain: str, silence: timedelta, *, suspicious: int, most: int) -> Ended:
        """Give the runs of workers silent for that long back to the queue.

        A run that lost `suspicious` workers fails where it stands out among what ran and what died (decision 0019), and
        one that lost `most` always.
        """
        return await self._ended(sweep.RESCUE, domain, silence, suspicious, most)

    async def hand_back(self, worker: UUID, *, but: Sequence[UUID] = (), age: timedelta = timedelta(0)) -> Ended:
        """Give the runs of a worker, started at least `age` ago, back to the queue, but for those it has in hand."""
        return await self._ended(sweep.HAND_BACK, worker, age, list(but))

    async def _ended(self, statement: str, *arguments: object) -> Ended:
        rows = await self.pool.fetch(statement, *arguments)
        return Ended(len(rows), [row["id"] for row in rows if row["awaited"]])

    async def make_days(self) -> int:
        """See that the days to come have their partitions; returns how many were made."""
        async with self.pool.acquire(timeout=5) as connection:
            return await days.make(connection)

    async def index_days(self) -> list[str]:
        """Index the days that are over, on a connection of its own, because it may take minutes."""
        connection = await asyncpg.connect(
            self._dsn, timeout=5, server_settings={"application_name": f"carillon {self._name} indexing"}
        )
        try:
            return await days.index(connection)
        finally:
            await connection.close(timeout=5)

    async def forget(self, age: timedelta) -> int:
        """Drop the days that ended this long ago, and up to 5,000 events, causes and unreadable messages as old.

        Returns how many days and rows those were.
        """
        async with self.pool.acquire(timeout=5) as connection:
            dropped = await days.drop(connection, age)
        await self.pool.execute(FORGET)
        events = await self.pool.fetch(sweep.FORGET_EVENTS, age)
        causes = await self.pool.fetch(sweep.FORGET_CAUSES, age)
        messages = await self.pool.fetch(sweep.FORGET_MESSAGES, age)
        return len(dropped) + len(events) + len(causes) + len(messages)

    async def forget_fires(self, age: timedelta) -> int:
        """Forget up to 5,000 fires that were decided this long ago; the newest 50 of each schedule stay."""
        return len(await self.pool.fetch(sweep.FORGET_FIRES, age))

    async def unheard(self, domain: str, age: timedelta, oldest: timedelta) -> list[dict[str, Any]]:
        """At most 500 events of between these ages without the run of a task of this domain that hears them."""
        return [dict(row) for row in await self.pool.fetch(sweep.UNHEARD, domain, age, oldest)]

    async def unpublished(self, age: timedelta, room: int) -> list[NewEvent]:
        """Events at least that old that the transport did not take."""
        rows = await self.pool.fetch(sweep.UNPUBLISHED, age, room)
        return [NewEvent(**{**row, "data": orjson.dumps(row["data"]).decode()}) for row in map(dict, rows)]

    async def enrol(self, worker: UUID, domain: str, host: str, pid: int, version: str, concurrency: int) -> None:
        """Enter a worker; its heartbeat keeps its runs from being rescued."""
        await self.pool.execute(sweep.ENROL, worker, domain, host, pid, version, concurrency)

    async def heartbeat(self, worker: UUID, running: int) -> bool:
        """Say that a worker lives; False when it was retired."""
        return await self.pool.fetchval(sweep.HEARTBEAT, worker, running) is not None

    async def retire(self, worker: UUID) -> None:
        """Enter that a worker stopped by itself."""
        await self.pool.execute(sweep.RETIRE, worker)

    async def bury_message(self, letter: UUID, domain: str, queue: str, reason: str, body: bytes, headers: str) -> None:
        """Keep a message that nobody could read; of one beyond 1 MiB the beginning, and how long it was."""
        # Numbers and quoted values differ from one message to the next of the same kind.
        kind = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "", f"{queue}|{reason}")
        fingerprint = sha256(kind.encode()).hexdigest()[:16]
        begin, size = body[:MOST_KEPT_BYTES], len(body) if len(body) > MOST_KEPT_BYTES else None
        await self.pool.execute(sweep.BURY_MESSAGE, letter, domain, queue, reason, begin, headers, fingerprint, size)

    async def _ids(self, statement: str, *arguments: object, connection: Connection | None = None) -> set[UUID]:
        rows = await (connection or self.pool).fetch(statement, *arguments)
        return {row["id"] for row in rows}


def _delivery(row: asyncpg.Record, kind: type[Delivery] = Delivery) -> Delivery:
    return kind(
        id=row["id"],
        attempt=row["attempt"],
        uncounted=row["uncounted"],
        task=row["task"],
        args=row["args"],
        labels=row["labels"],
        cause=cause_of(row["cause"]),
        traceparent=row["traceparent"],
        priority=row["priority"],
        deadline_at=row["deadline_at"],
        step=row["step"],
        given_at=time.time(),
    )
