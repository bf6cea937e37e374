"""The platform as one process sees it: the ledger, the transport, storage, and what can be asked of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Self
from uuid import UUID

import asyncpg
import obstore.store
import orjson
import structlog
from obstore.store import ObjectStore
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.callbacks import origin_of
from carillon.cloudevents import OWN, Envelope, from_ledger
from carillon.contracts import Event
from carillon.contracts.runs import RunEnded
from carillon.errors import OTHER_WORK, IdempotencyConflictError
from carillon.ids import derived_id, new_id
from carillon.ledger.audit import Audit
from carillon.ledger.catalogue import Catalogue, Hearer
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.history import History
from carillon.ledger.ledger import Connection, Ledger
from carillon.ledger.records import Delivery, NewEvent, NewRun, Priority, Submitted
from carillon.ledger.schedules import Schedules
from carillon.ledger.statements.rows import gate_of
from carillon.ledger.wakeups import Wakeups
from carillon.ledger.workflows import runs_of
from carillon.run import Cause
from carillon.settings import PlatformSettings, sqlalchemy_url
from carillon.stored_results import StoredResults
from carillon.telemetry.traces import current_traceparent
from carillon.transports.port import Transport
from carillon.transports.postgres import PostgresTransport
from carillon.workflows.records import Parking

log = structlog.get_logger(__name__)

#: After the transport refused, submits stay in the ledger for this long before it is tried again.
REST_SECONDS = 1.0
#: Runs of one domain and priority that the transport may hold. Beyond it they wait in the ledger.
WINDOW = 10_000


#: Those that this process has open, for `carillon.get_tracker`.
open_platforms: list[Platform] = []


class Platform:
    """Everything that is shared, opened and closed together. Use it as an async context manager."""

    def __init__(self, settings: PlatformSettings, *, name: str) -> None:
        self.settings = settings
        self.name = name
        self._assemble()
        self._open = AsyncExitStack()
        self._resting_until = 0.0
        #: By domain and priority.
        self._room: dict[tuple[str, int], int] = {}
        self._full_until: dict[tuple[str, int], float] = {}
        self._under_way: Counter[tuple[str, int]] = Counter()
        self._dispatching: set[asyncio.Task[bool]] = set()

    def _assemble(self) -> None:
        """Make the parts; nothing connects before they are opened."""
        settings, name = self.settings, self.name
        dsn = settings.database_url.get_secret_value()
        self.ledger = Ledger(dsn, name=name, carries_events=settings.amqp_url() is None, call_back=self._call_back)
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
        self.audit = Audit(self.engine)
        self.schedules = Schedules(self.engine)
        self.catalogue = Catalogue(self.engine)

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
        open_platforms.append(self)
        self._open.callback(open_platforms.remove, self)
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

    @cached_property
    def stored_results(self) -> StoredResults:
        """Results that are too large for the ledger."""
        return StoredResults(lambda: self.storage)

    async def submit(self, run: NewRun) -> Submitted:
        """Accept a run: it is durable when this returns.

        Raises `IdempotencyConflictError` when its id was accepted for other work (see `NewRun.covered`), what
        `carillon.ledger.conditions.Conditions.submit` raises for a run that is unique or comes after others, and one of
        `carillon.ledger.group_commit.SERVER_AWAY` when PostgreSQL does not answer; then nothing was accepted.
        """
        if run.is_conditional:
            (submitted,) = await self.ledger.conditions.submit([(run, False)])
            return submitted
        given = run.run_at is None and await self._reserve((run.domain, run.priority), 1) == 1
        submitted = await self.ledger.submit((run, given))
        if submitted.given:
            await self.dispatch(run.domain, [_delivery(run)])
        return submitted

    async def submit_many(self, runs: Sequence[NewRun]) -> list[Submitted]:
        """Accept runs together, in order, as one statement for every 500: they are durable when this returns.

        Raises `IdempotencyConflictError`, which says where, when one has an id that was accepted for other work;
        then none was accepted, unless somebody else used the id in this very moment. Raises one of
        `carillon.ledger.group_commit.SERVER_AWAY` when PostgreSQL does not answer; then some may have been accepted,
        and those with an idempotency key can be sent again. Where some are unique or come after others, all are one
        transaction, which also raises what `carillon.ledger.conditions.Conditions.submit` raises.
        """
        await self._refuse_conflicts(runs)
        batch = list(zip(runs, await self._fitting(runs), strict=True))
        outcomes: Sequence[Submitted | BaseException]
        if any(run.is_conditional for run in runs):
            outcomes = await self.ledger.conditions.submit(batch)
        else:
            outcomes = await self.ledger.submit.together(batch)
        created: dict[str, list[Delivery]] = {}
        for run, outcome in zip(runs, outcomes, strict=True):
            if isinstance(outcome, Submitted) and outcome.given:
                created.setdefault(run.domain, []).append(_delivery(run))
        for domain, deliveries in created.items():
            self._dispatch_beside(domain, deliveries)
        return _all_accepted(outcomes)

    async def park(self, worker: UUID, parking: Parking) -> bool:
        """Let a workflow wait, and begin what it asked for; False when the attempt was not the current one any more.

        Raises one of `carillon.ledger.group_commit.SERVER_AWAY` when PostgreSQL does not answer.
        """
        runs = runs_of(parking)
        parked = await self.ledger.workflows.park((worker, parking, await self._fitting(runs)))
        if parked is None:
            return False
        if parked.limited:
            # It gave its slot away.
            self.wakeups.tell(gate_of(self.name))
        created: dict[str, list[Delivery]] = {}
        for run in runs:
            if run.id in parked.given:
                created.setdefault(run.domain, []).append(_delivery(run))
        for domain, deliveries in created.items():
            self._dispatch_beside(domain, deliveries)
        return True

    async def tell_workflows(self, events: Sequence[NewEvent]) -> None:
        """Give recorded events to the workflows that wait for them; what cannot be now, a sweeper does."""
        awaited = [event.id for event in events if await self.catalogue.is_awaited(event.type)]
        if not awaited:
            return
        try:
            await self.ledger.workflows.hear(awaited)
        except (*SERVER_AWAY, asyncpg.PostgresError) as error:
            log.warning("workflows wait for the sweeper to be given events", events=len(awaited), error=repr(error))

    def _dispatch_beside(self, domain: str, deliveries: Sequence[Delivery]) -> None:
        """Give runs to the transport while the caller goes on: they are accepted, whatever becomes of it.

        Bounded by the window, in which what is under way counts.
        """
        under_way = Counter((domain, delivery.priority) for delivery in deliveries)
        self._under_way.update(under_way)

        def arrive(task: asyncio.Task[bool]) -> None:
            self._dispatching.discard(task)
            self._under_way.subtract(under_way)

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
        first: dict[UUID, tuple[str, Any, str | None]] = {}
        work = {position: (run.task, orjson.loads(run.args), run.covered) for position, run in keyed}
        refused = [position for position, run in keyed if first.setdefault(run.id, work[position]) != work[position]]
        same = await self.ledger.same_work([run for _, run in keyed])
        others = {run for run, is_same in same.items() if not is_same}
        refused += [position for position, run in keyed if run.id in others and position not in refused]
        if refused:
            message = f"{len(refused)} idempotency keys were used before with {OTHER_WORK}; use new keys"
            raise IdempotencyConflictError(message, positions=sorted(refused))

    async def _fitting(self, runs: Sequence[NewRun]) -> list[bool]:
        """Which of the runs go to the transport at once: the first of each window, as far as it has room."""
        due = Counter((run.domain, run.priority) for run in runs if _is_due(run))
        room = {window: await self._reserve(window, wanted) for window, wanted in due.items()}
        fitting = []
        for run in runs:
            fits = _is_due(run) and room[run.domain, run.priority] > 0
            fitting.append(fits)
            if fits:
                room[run.domain, run.priority] -= 1
        return fitting

    async def _reserve(self, window: tuple[str, int], wanted: int) -> int:
        """How many of so many runs of a domain and priority the transport may be given now."""
        now = time.monotonic()
        if self.transport.is_ledger or now < self._resting_until or now < self._full_until.get(window, 0.0):
            return 0
        if self._room.get(window, 0) < wanted:
            domain, priority = window
            waiting = await self.transport.waiting(domain, Priority(priority))
            self._room[window] = 0 if waiting is None else max(0, WINDOW - waiting - self._under_way[window])
            if self._room[window] == 0:
                # A full window is not counted again for every submit.
                self._full_until[window] = time.monotonic() + REST_SECONDS
                return 0
        granted = min(wanted, self._room[window])
        self._room[window] -= granted
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

    async def _call_back(
        self, ended: Sequence[Mapping[str, Any]], connection: Connection | None
    ) -> Callable[[], Awaitable[None]]:
        envelopes = [
            Envelope.of(
                RunEnded(
                    run_id=row["id"],
                    task=row["task"],
                    state=row["state"],
                    attempt=row["attempt"],
                    finished_at=row["finished_at"],
                    error=row["error"],
                    receiver=origin_of(row["callback_url"]),
                ),
                source=f"{OWN}{row['domain']}",
                id=f"{row['id']}/end",
                traceparent=None,
            )
            for row in ended
        ]
        events = [
            envelope.new_event(actor="platform", run_id=row["id"])
            for envelope, row in zip(envelopes, ended, strict=True)
        ]
        new = await self.ledger.say(events, await self.answers(envelopes), connection=connection)
        return partial(self.publish, [event for event in events if event.id in new])

    async def say_within(self, envelope: Envelope, connection: Connection | None) -> Callable[[], Awaitable[None]]:
        """Record an event of the platform's own, as part of a transaction; what comes back publishes it after that."""
        event = envelope.new_event(actor="platform")
        new = await self.ledger.say([event], await self.answers([envelope]), connection=connection)
        return partial(self.publish, [event] if new else [])

    async def publish(self, events: Sequence[NewEvent]) -> None:
        """Give recorded events to the transport; those that it does not take wait for the sweeper.

        Workflows that wait for them get them. Where the ledger cannot note that they were published, they are published
        once more; two answers to one are one run.
        """
        await self.tell_workflows(events)
        if self.ledger.carries_events:
            return
        failed = set(await self.transport.publish([from_ledger(event) for event in events]))
        try:
            await asyncio.gather(*(self.ledger.mark_published(e.id) for e in events if e.id not in failed))
        except SERVER_AWAY as error:
            log.warning("published events wait for the sweeper to be noted", events=len(events), error=repr(error))

    async def hear(self, domain: str, envelope: Envelope) -> None:
        """Record an event that came over the transport, and submit the runs of one domain that answer it."""
        event = envelope.new_event(actor="events")
        await self.ledger.say([replace(event, published=True)], [])
        await self.tell_workflows([event])
        for task in await self.catalogue.hearers(envelope.type, domain):
            await self.submit(answer(envelope, task))

    def envelopes(self, events: Sequence[Event], source: str, run_id: UUID) -> list[Envelope]:
        """Wrap what a run says. The ids come from the run, so that an attempt that is repeated says the same events."""
        if not events:
            return []
        traceparent = current_traceparent()
        return [
            Envelope.of(event, source=f"{OWN}{source}", id=f"{run_id}/{index}", traceparent=traceparent)
            for index, event in enumerate(events)
        ]

    async def answers(self, envelopes: Sequence[Envelope]) -> list[NewRun]:
        """The runs that answer events, where the ledger itself carries them; elsewhere the transport does."""
        if not self.ledger.carries_events:
            return []
        return [
            answer(envelope, task) for envelope in envelopes for task in await self.catalogue.hearers(envelope.type)
        ]

    async def bury(self, queue: str, reason: str, body: bytes, headers: Mapping[str, Any]) -> None:
        """Keep a message that nobody could read."""
        kept = orjson.dumps({_text(name): _text(value) for name, value in headers.items()}).decode()
        await self.ledger.bury_message(new_id(), self.name, queue, _text(reason)[:2000], body, kept)


def _is_due(run: NewRun) -> bool:
    return run.run_at is None and not run.is_conditional


def _delivery(run: NewRun) -> Delivery:
    """The first attempt of a run that was accepted just now."""
    return Delivery(
        id=run.id,
        attempt=1,
        task=run.task,
        args=orjson.loads(run.args),
        labels=run.labels,
        priority=run.priority,
        deadline_at=run.deadline_at,
        cause=run.cause,
        traceparent=run.traceparent,
        step=run.step,
        given_at=time.time(),
    )


def _all_accepted(outcomes: Sequence[Submitted | BaseException]) -> list[Submitted]:
    """The outcomes, if none is an error; raises the error that says most."""
    conflicts = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, IdempotencyConflictError)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, IdempotencyConflictError):
            raise outcome
    if conflicts:
        message = f"{len(conflicts)} idempotency keys were just used with {OTHER_WORK}; the other runs were accepted"
        raise IdempotencyConflictError(message, positions=conflicts)
    return [outcome for outcome in outcomes if isinstance(outcome, Submitted)]


def _text(value: object) -> str:
    """The value as text that PostgreSQL can keep."""
    return str(value).replace("\x00", "\ufffd").encode(errors="replace").decode()


def answer(envelope: Envelope, task: Hearer) -> NewRun:
    """The run of a task that answers an event; the same event and task are always the same run."""
    return NewRun(
        id=derived_id("hear", str(envelope.key), task.name),
        domain=task.domain,
        task=task.name,
        labels=task.labels,
        priority=task.priority,
        args=orjson.dumps({"event": envelope.data}).decode(),
        event_id=envelope.key,
        cause=Cause(envelope.id, envelope.type, envelope.source, envelope.time),
        actor=f"event {envelope.type}",
        traceparent=envelope.traceparent,
    )
