"""The circuit breakers that the tasks of one process use."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from carillon import clock
from carillon.cloudevents import OWN, Envelope
from carillon.contracts.policies import BreakerChanged
from carillon.errors import CircuitOpenError
from carillon.ids import new_id
from carillon.ledger.group_commit import GroupCommit
from carillon.policies.asking import NO_ANSWER, asked, in_words
from carillon.policies.breaker import Breaker
from carillon.policies.circuit import (
    Circuit,
    CircuitState,
    Seen,
    Step,
    answered,
    failed,
    failed_again,
    given_back,
    probing,
)

if TYPE_CHECKING:
    from carillon.ledger.ledger import Connection
    from carillon.platform import Platform
    from carillon.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: What is known of a breaker holds for so long, and then the ledger is asked: so long, and as long as the answer takes,
#: calls may pass here through a breaker that was opened elsewhere.
LOOK_SECONDS = 1.0
#: When a refused call may be made again, where nobody says so.
UNTOLD = timedelta(seconds=1)


class View:
    """What this process knows of a breaker."""

    __slots__ = ("ahead", "circuit", "is_seen", "looked_at", "looking")

    def __init__(self) -> None:
        self.circuit = Circuit()
        self.is_seen = False
        #: On the monotonic clock: when it was looked at last, with or without an answer.
        self.looked_at = float("-inf")
        #: One looks for all. Whoever calls meanwhile goes by what is known, if anything is.
        self.looking = asyncio.Lock()
        #: By how much the ledger's clock is ahead of this machine's.
        self.ahead = timedelta(0)

    @property
    def is_old(self) -> bool:
        """Whether it is time to look again."""
        return clock.monotonic() - self.looked_at >= LOOK_SECONDS

    @property
    def now(self) -> datetime:
        """This moment by the ledger's clock."""
        return clock.now() + self.ahead

    def see(self, seen: Seen) -> None:
        """Remember a sight."""
        self.circuit, self.is_seen, self.looked_at = seen.circuit, True, clock.monotonic()
        self.ahead = seen.now - clock.now()


class Breakers:
    """Lets calls pass or refuses them, and counts how they end.

    A breaker that is closed costs a look at the ledger each second, and nothing for the calls between. Where the ledger
    does not answer, what was known last holds, and failures are not counted.
    """

    def __init__(self, platform: Platform, metrics: Metrics) -> None:
        self._platform = platform
        self._circuits = platform.ledger.circuits
        self._metrics = metrics
        self._views: dict[str, View] = {}
        # Looking up a labelled counter costs more than counting with it.
        self._counters: dict[tuple[str, str], Any] = {}
        # Together: a dependency that is down fails many calls in one moment, and all of them change one row.
        self._fail = GroupCommit(self._count_failures, linger=0.0)

    @asynccontextmanager
    async def guard(self, breaker: Breaker) -> AsyncIterator[None]:
        """Let a call pass; raises `CircuitOpenError` where the breaker does not, and `TimeoutError` in the block."""
        token = await self._admit(breaker)
        try:
            async with asyncio.timeout(breaker.timeout.total_seconds()):
                yield
        except BaseException as error:
            await self._note(breaker, token, error)
            raise
        self._count(breaker, "answered")
        if token is not None:
            await self._change(breaker, answered(token))

    async def refresh(self) -> None:
        """Look at what is not closed, so that the figures are right also where nobody calls any more."""
        for name, view in self._views.items():
            if view.circuit.state is not CircuitState.CLOSED:
                await self._look(name, view)

    async def _admit(self, breaker: Breaker) -> UUID | None:
        """Nothing for a call that passes, its token for one that is the probe."""
        view = self._views.get(breaker.name)
        if view is None:
            view = self._views[breaker.name] = View()
        if view.is_old and not (view.is_seen and view.looking.locked()):
            async with view.looking:
                if view.is_old:
                    await self._look(breaker.name, view)
        if view.circuit.state is CircuitState.CLOSED:
            return None
        due = view.circuit.may_pass_at
        if due is not None and due <= view.now:
            token = new_id()
            circuit = await self._change(breaker, probing(breaker, token))
            if circuit.probe == token:
                return token
            if circuit.state is CircuitState.CLOSED:
                return None
        raise self._refusal(breaker, view)

    def _refusal(self, breaker: Breaker, view: View) -> CircuitOpenError:
        self._count(breaker, "refused")
        circuit = view.circuit
        left = (circuit.may_pass_at or view.now) - view.now
        if left <= timedelta(0):
            # It is time, and the ledger did not say who may try.
            left = UNTOLD
        why = "another call is trying it" if circuit.state is CircuitState.HALF_OPEN else f"last, {circuit.reason}"
        told = f"the breaker {breaker.name} is {circuit.state.value.replace('_', ' ')} ({why})"
        message = f"{told}; a call may pass in {left.total_seconds():.1f} s"
        return CircuitOpenError(message, retry_after=left)

    async def _note(self, breaker: Breaker, token: UUID | None, error: BaseException) -> None:
        """Count how a call ended that raised; nothing here is raised in its place."""
        if breaker.is_failure(error):
            self._count(breaker, "failed")
            reason = in_words(error)
            if token is not None:
                await self._change(breaker, failed_again(breaker, token, reason))
                return
            with suppress(*NO_ANSWER):
                await asked(self._fail((breaker, reason)), "failure not counted", breaker=breaker.name)
            return
        is_answer = breaker.is_answer(error)
        self._count(breaker, "answered" if is_answer else "unknown")
        if token is not None:
            await self._change(breaker, answered(token) if is_answer else given_back(token))

    async def _count_failures(self, batch: Sequence[tuple[Breaker, str]]) -> list[None]:
        last = dict(batch)
        for breaker, times in Counter(breaker for breaker, _ in batch).items():
            await self._step(breaker, failed(breaker, times, last[breaker]))
        return [None] * len(batch)

    async def _change(self, breaker: Breaker, step: Step) -> Circuit:
        """What the breaker is after a step, or what it was where the ledger does not answer."""
        with suppress(*NO_ANSWER):
            return await asked(self._step(breaker, step), "breaker not changed", breaker=breaker.name)
        return self._views[breaker.name].circuit

    async def _step(self, breaker: Breaker, step: Step) -> Circuit:
        seen = await self._circuits.change(breaker.name, step, partial(self._announce, breaker))
        self._see(breaker.name, self._views[breaker.name], seen)
        return seen.circuit

    async def _look(self, name: str, view: View) -> None:
        try:
            seen = await asked(self._circuits.read(name), "breaker not looked at", breaker=name)
        except NO_ANSWER:
            view.looked_at = clock.monotonic()
        else:
            self._see(name, view, seen or Seen(Circuit(), view.now))

    def _see(self, name: str, view: View, seen: Seen) -> None:
        view.see(seen)
        for state in CircuitState:
            self._metrics.breaker_state.labels(name, state.value).set(seen.circuit.state is state)

    def _count(self, breaker: Breaker, outcome: str) -> None:
        key = (breaker.name, outcome)
        if key not in self._counters:
            self._counters[key] = self._metrics.breaker_calls.labels(*key)
        self._counters[key].inc()

    async def _announce(
        self, breaker: Breaker, seen: Seen, connection: Connection | None
    ) -> Callable[[], Awaitable[None]]:
        circuit, now = seen
        tell = log.info if circuit.state is CircuitState.CLOSED else log.warning
        tell(f"breaker {circuit.state.value}", breaker=breaker.name, reason=circuit.reason, retry_at=circuit.retry_at)
        changed = BreakerChanged(
            breaker=breaker.name,
            state=circuit.state.value,
            change=circuit.changes,
            changed_at=now,
            retry_at=circuit.retry_at if circuit.state is CircuitState.OPEN else None,
            reason=circuit.reason,
        )
        id_ = f"{breaker.name}/{circuit.changes}"
        return await self._platform.say_within(Envelope.of(changed, source=f"{OWN}breakers", id=id_), connection)
