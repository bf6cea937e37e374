"""The platform as one process sees it: the ledger, the transport, storage, and what can be asked of them."""

from __future__ import annotations

import asyncio
import time
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

from carillon.cloudevents import Envelope, from_ledger
from carillon.contracts import Event
from carillon.contracts.runs import RunEnded
from carillon.ids import derived_id, new_id
from carillon.ledger.audit import Audit
from carillon.ledger.catalogue import Catalogue
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.history import History
from carillon.ledger.ledger import Connection, Ledger
from carillon.ledger.records import Delivery, NewEvent, NewRun, Priority, Submitted
from carillon.ledger.schedules import Schedules
from carillon.ledger.wakeups import Wakeups
from carillon.run import Cause
from carillon.settings import PlatformSettings, sqlalchemy_url
from carillon.telemetry.traces import current_traceparent
from carillon.transports.port import Transport
from carillon.transports.postgres import PostgresTransport

log = structlog.get_logger(__name__)

#: After the transport refused, submits stay in the ledger for this long before it is tried again.
REST_SECONDS = 1.0
#: Runs of one domain and priority that the transport may hold. Beyond it they wait in the ledger.
WINDOW = 10_000


class Platform:
    """Everything that is shared, opened and closed together. Use it as an async context manager."""

    def __init__(self, settings: PlatformSettings, *, name: str) -> None:
        self.settings = settings
        self.name = name
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
        self._open = AsyncExitStack()
        self._resting_until = 0.0
        #: By domain and priority.
        self._room: dict[tuple[str, int], int] = {}
        self._full_until: dict[tuple[str, int], float] = {}

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
        if run.unique is not None or run.after is not None:
            return await self.ledger.conditions.submit(run)
        given = run.run_at is None and await self._is_open(run.domain, run.priority)
        submitted = await self.ledger.submit((run, given))
        if submitted.given:
            await self._give(run)
        return submitted

    async def _is_open(self, domain: str, priority: int) -> bool:
        window = (domain, priority)
        now = time.monotonic()
        if self.transport.is_ledger or now < self._resting_until or now < self._full_until.get(window, 0.0):
            return False
        if self._room.get(window, 0) <= 0:
            waiting = await self.transport.waiting(domain, Priority(priority))
            self._room[window] = 0 if waiting is None else max(0, WINDOW - waiting)
            if self._room[window] == 0:
                # A full window is not counted again for every submit.
                self._full_until[window] = time.monotonic() + REST_SECONDS
                return False
        self._room[window] -= 1
        return True

    async def _give(self, run: NewRun) -> None:
        delivery = Delivery(
            id=run.id,
            attempt=1,
            task=run.task,
            args=orjson.loads(run.args),
            labels=run.labels,
            priority=run.priority,
            deadline_at=run.deadline_at,
            cause=run.cause,
            traceparent=run.traceparent,
            given_at=time.time(),
        )
        await self.dispatch(run.domain, [delivery])

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

    async def follow_up(self, ended: Sequence[UUID]) -> None:
        """Tell those who await these ended runs; what cannot be told now is found by a sweeper."""
        try:
            await self.ledger.followups.follow(ended)
        except SERVER_AWAY as error:
            log.warning("ended runs wait for the sweeper to be followed up", runs=len(ended), error=repr(error))

    async def _call_back(
        self, ended: Sequence[asyncpg.Record], connection: Connection
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
                    callback_url=row["callback_url"],
                ),
                source=f"/carillon/{row['domain']}",
                id=f"{row['id']}/end",
                traceparent=None,
            )
            for row in ended
        ]
        events = [envelope.new_event(actor="platform") for envelope in envelopes]
        new = await self.ledger.say(events, await self.answers(envelopes), connection=connection)
        return partial(self.publish, [event for event in events if event.id in new])

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
