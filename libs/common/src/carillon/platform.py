"""The platform as one process sees it: the ledger, the transport, storage, and what can be asked of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any, Self
from uuid import UUID

import obstore.store
import orjson
import structlog
from obstore.store import ObjectStore
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.cloudevents import Envelope, from_ledger
from carillon.contracts import Event
from carillon.errors import IdempotencyConflictError
from carillon.ids import derived_id, new_id
from carillon.ledger.catalogue import Catalogue
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.history import History
from carillon.ledger.ledger import Ledger
from carillon.ledger.records import Delivery, NewEvent, NewRun, Submitted
from carillon.ledger.schedules import Schedules
from carillon.ledger.statements import SAME_WORK
from carillon.ledger.wakeups import Wakeups
from carillon.run import Cause
from carillon.settings import PlatformSettings, sqlalchemy_url
from carillon.telemetry.traces import current_traceparent
from carillon.transports.port import Transport
from carillon.transports.postgres import PostgresTransport

log = structlog.get_logger(__name__)

#: After the transport refused, submits stay in the ledger for this long before it is tried again.
REST_SECONDS = 1.0
#: Runs of one domain that the transport may hold. Beyond it they wait in the ledger, ordered by priority.
WINDOW = 10_000


class Platform:
    """Everything that is shared, opened and closed together. Use it as an async context manager."""

    def __init__(self, settings: PlatformSettings, *, name: str) -> None:
        self.settings = settings
        self.name = name
        dsn = settings.database_url.get_secret_value()
        self.ledger = Ledger(dsn, name=name, carries_events=settings.amqp_url() is None)
        self.wakeups = Wakeups(dsn)
        self.transport: Transport = self._transport()
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(dsn),
            pool_size=2,
            max_overflow=4,
            pool_timeout=5,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args={
                "timeout": 5,
                "command_timeout": 60,
                "server_settings": {"application_name": f"carillon {name}"},
            },
        )
        self.history = History(self.engine)
        self.schedules = Schedules(self.engine)
        self.catalogue = Catalogue(self.engine)
        self._open = AsyncExitStack()
        self._resting_until = 0.0
        self._room: dict[str, int] = {}
        self._under_way: Counter[str] = Counter()
        self._dispatching: set[asyncio.Task[bool]] = set()

    def _transport(self) -> Transport:
        url = self.settings.amqp_url()
        if url is None:
            return PostgresTransport(self.ledger, self.wakeups)
        from carillon.transports.rabbitmq import RabbitTransport  # noqa: PLC0415 - 15 MB that PostgreSQL users spare

        return RabbitTransport(url, prefix=self.settings.rabbit_queue_prefix, name=self.name, bury=self.bury)

    async def __aenter__(self) -> Self:
        """Open; raises `PlatformUnavailableError` saying what to check."""
        await self._open.enter_async_context(self.ledger)
        await self._open.enter_async_context(self.wakeups)
        self._open.push_async_callback(self.engine.dispose)
        await self._open.enter_async_context(self.transport)
        self._open.push_async_callback(self._see_dispatched)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self._open.aclose()

    @cached_property
    def storage(self) -> ObjectStore:
        """Where files are kept. Keys begin with the word of the service that owns them."""
        url = self.settings.storage_url
        if "://" in url:
            return obstore.store.from_url(url)
        return obstore.store.LocalStore(prefix=url, mkdir=True)

    async def submit(self, run: NewRun) -> Submitted:
        """Accept a run: it is durable when this returns.

        Raises `IdempotencyConflictError` when its id was accepted with other arguments, and one of
        `carillon.ledger.group_commit.SERVER_AWAY` when PostgreSQL does not answer; then nothing was accepted.
        """
        given = run.run_at is None and await self._reserve(run.domain, 1) == 1
        submitted = await self.ledger.submit((run, given))
        if given and submitted.created:
            await self.dispatch(run.domain, [_delivery(run)])
        return submitted

    async def submit_many(self, runs: Sequence[NewRun]) -> list[Submitted]:
        """Accept runs together, in order, as one statement for every 500: they are durable when this returns.

        Raises `IdempotencyConflictError`, which says where, when one has an id that was accepted with other arguments;
        then none was accepted, unless somebody else used the id in this very moment. Raises one of
        `carillon.ledger.group_commit.SERVER_AWAY` when PostgreSQL does not answer; then some may have been accepted,
        and those with an idempotency key can be sent again.
        """
        await self._refuse_conflicts(runs)
        given = await self._fitting(runs)
        outcomes = await self.ledger.submit.together(list(zip(runs, given, strict=True)))
        created: dict[str, list[Delivery]] = {}
        for run, was_given, outcome in zip(runs, given, outcomes, strict=True):
            if was_given and isinstance(outcome, Submitted) and outcome.created:
                created.setdefault(run.domain, []).append(_delivery(run))
        for domain, deliveries in created.items():
            self._dispatch_beside(domain, deliveries)
        return _all_accepted(outcomes)

    def _dispatch_beside(self, domain: str, deliveries: Sequence[Delivery]) -> None:
        """Give runs to the transport while the caller goes on: they are accepted, whatever becomes of it.

        Bounded by the window, in which what is under way counts.
        """
        self._under_way[domain] += len(deliveries)

        def arrive(task: asyncio.Task[bool]) -> None:
            self._dispatching.discard(task)
            self._under_way[domain] -= len(deliveries)

        task = asyncio.create_task(self.dispatch(domain, deliveries), name=f"dispatch to {domain}")
        self._dispatching.add(task)
        task.add_done_callback(arrive)

    async def _see_dispatched(self) -> None:
        """Wait for what is under way; each dispatch has a deadline of its own."""
        if self._dispatching:
            await asyncio.wait(self._dispatching)

    async def _refuse_conflicts(self, runs: Sequence[NewRun]) -> None:
        keyed = [(position, run) for position, run in enumerate(runs) if run.idempotency_key is not None]
        if not keyed:
            return
        first: dict[UUID, tuple[str, Any]] = {}
        work = {position: (run.task, orjson.loads(run.args)) for position, run in keyed}
        refused = [position for position, run in keyed if first.setdefault(run.id, work[position]) != work[position]]
        ids, tasks, args = zip(*((run.id, run.task, run.args) for _, run in keyed), strict=True)
        rows = await self.ledger.pool.fetch(SAME_WORK, ids, tasks, args)
        others = {row["id"] for row in rows if not row["same"]}
        refused += [position for position, run in keyed if run.id in others and position not in refused]
        if refused:
            message = f"{len(refused)} idempotency keys were used before with other arguments; use new keys"
            raise IdempotencyConflictError(message, positions=sorted(refused))

    async def _fitting(self, runs: Sequence[NewRun]) -> list[bool]:
        """Which of the runs go to the transport at once: the first of each domain, as far as its window has room."""
        due = Counter(run.domain for run in runs if run.run_at is None)
        room = {domain: await self._reserve(domain, wanted) for domain, wanted in due.items()}
        fitting = []
        for run in runs:
            fits = run.run_at is None and room[run.domain] > 0
            fitting.append(fits)
            room[run.domain] = room.get(run.domain, 0) - fits
        return fitting

    async def _reserve(self, domain: str, wanted: int) -> int:
        """How many of so many runs the transport may be given now."""
        if self.transport.is_ledger or time.monotonic() < self._resting_until:
            return 0
        if self._room.get(domain, 0) < wanted:
            waiting = await self.transport.waiting(domain)
            self._room[domain] = 0 if waiting is None else max(0, WINDOW - waiting - self._under_way[domain])
            if self._room[domain] == 0:
                # A full window is not counted again for every submit.
                self._resting_until = time.monotonic() + REST_SECONDS
                return 0
        granted = min(wanted, self._room[domain])
        self._room[domain] -= granted
        return granted

    async def dispatch(self, domain: str, deliveries: Sequence[Delivery]) -> bool:
        """Give runs to the transport; those that it does not take wait in the ledger for the sweeper.

        False when there were any such.
        """
        failed = await self.transport.dispatch(domain, deliveries)
        if failed:
            self._resting_until = time.monotonic() + REST_SECONDS
            try:
                await self.ledger.mark_undispatched(failed)
            except SERVER_AWAY as error:
                log.warning("undispatched runs wait for the overdue sweep", runs=len(failed), error=repr(error))
        return not failed

    async def say(self, envelope: Envelope, *, actor: str) -> bool:
        """Record an event and let everyone who hears it answer; False when it was recorded before."""
        event = envelope.new_event(actor=actor)
        new = await self.ledger.say([event], await self.answers([envelope]))
        if new:
            await self.publish([event])
        return bool(new)

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Give recorded events to the transport; those that it does not take wait for the sweeper."""
        if self.ledger.carries_events:
            return
        failed = set(await self.transport.publish([from_ledger(event) for event in events]))
        await asyncio.gather(*(self.ledger.mark_published(e.id) for e in events if e.id not in failed))

    async def hear(self, domain: str, envelope: Envelope) -> None:
        """Record an event that came over the transport, and submit the runs of one domain that answer it."""
        event = envelope.new_event(actor="events")
        await self.ledger.say([replace(event, published=True)], [])
        for task in await self.catalogue.hearers(envelope.type, domain):
            await self.submit(answer(envelope, task.domain, task.name))

    def envelopes(self, events: Sequence[Event], source: str, run_id: UUID) -> list[Envelope]:
        """Wrap what a run says. The ids come from the run, so that an attempt that is repeated says the same events."""
        if not events:
            return []
        traceparent = current_traceparent()
        return [
            Envelope.of(event, source=f"/carillon/{source}", id=f"{run_id}/{index}", traceparent=traceparent)
            for index, event in enumerate(events)
        ]

    async def answers(self, envelopes: Sequence[Envelope]) -> list[NewRun]:
        """The runs that answer events, where the ledger itself carries them; elsewhere the transport does."""
        if not self.ledger.carries_events:
            return []
        return [
            answer(envelope, task.domain, task.name)
            for envelope in envelopes
            for task in await self.catalogue.hearers(envelope.type)
        ]

    async def bury(self, queue: str, reason: str, body: bytes, headers: Mapping[str, Any]) -> None:
        """Keep a message that nobody could read."""
        kept = orjson.dumps({_text(name): _text(value) for name, value in headers.items()}).decode()
        await self.ledger.bury_message(new_id(), self.name, queue, _text(reason)[:2000], body[: 1 << 20], kept)


def _delivery(run: NewRun) -> Delivery:
    """The first attempt of a run that was accepted just now."""
    return Delivery(
        id=run.id,
        attempt=1,
        task=run.task,
        args=orjson.loads(run.args),
        labels=run.labels,
        cause=run.cause,
        traceparent=run.traceparent,
        given_at=time.time(),
    )


def _all_accepted(outcomes: Sequence[Submitted | BaseException]) -> list[Submitted]:
    """The outcomes, if none is an error; raises the error that says most."""
    conflicts = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, IdempotencyConflictError)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, IdempotencyConflictError):
            raise outcome
    if conflicts:
        message = f"{len(conflicts)} idempotency keys were just used with other arguments; the other runs were accepted"
        raise IdempotencyConflictError(message, positions=conflicts)
    return [outcome for outcome in outcomes if isinstance(outcome, Submitted)]


def _text(value: object) -> str:
    """The value as text that PostgreSQL can keep."""
    return str(value).replace("\x00", "\ufffd").encode(errors="replace").decode()


def answer(envelope: Envelope, domain: str, task: str) -> NewRun:
    """The run of a task that answers an event; the same event and task are always the same run."""
    return NewRun(
        id=derived_id("hear", str(envelope.key), task),
        domain=domain,
        task=task,
        args=orjson.dumps({"event": envelope.data}).decode(),
        event_id=envelope.key,
        cause=Cause(envelope.id, envelope.type, envelope.source, envelope.time),
        actor=f"event {envelope.type}",
        traceparent=envelope.traceparent,
    )
