"""What is known of a circuit breaker, and how that changes: values and functions, without a clock or a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from carillon.policies.breaker import Breaker

#: A probe is given up this long after its call should have ended.
SLACK = timedelta(seconds=5)
#: Characters kept of why a breaker opened.
MOST_REASON = 500


class CircuitState(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """A breaker as its row tells it."""

    state: CircuitState = CircuitState.CLOSED
    #: The moments of the last failures while it was closed, first to last; never more than open it.
    failed_at: tuple[datetime, ...] = ()
    #: Of one that is open, when the next call may pass, and how long it was to be left alone in all.
    retry_at: datetime | None = None
    pause: timedelta | None = None
    #: Of one that is half open, whose call is the probe, and when that is given up.
    probe: UUID | None = None
    probe_until: datetime | None = None
    #: What failed last when it opened.
    reason: str | None = None
    #: How often the state has changed.
    changes: int = 0

    @property
    def may_pass_at(self) -> datetime | None:
        """When a call may be let through that is refused now."""
        return self.probe_until if self.state is CircuitState.HALF_OPEN else self.retry_at


class Seen(NamedTuple):
    """A breaker at a moment of the ledger's clock."""

    circuit: Circuit
    now: datetime


#: What becomes of a circuit at a moment.
Step = Callable[[Circuit, datetime], Circuit]


def failed(breaker: Breaker, times: int, reason: str) -> Step:
    """So many calls failed that had been let through while the breaker was closed."""

    def step(circuit: Circuit, now: datetime) -> Circuit:
        if circuit.state is not CircuitState.CLOSED:
            # They began before it opened, and say nothing that is not known.
            return circuit
        moments = (*circuit.failed_at, *[now] * min(times, breaker.failures))[-breaker.failures :]
        if len(moments) < breaker.failures or moments[0] <= now - breaker.within:
            return replace(circuit, failed_at=moments)
        return _opened(circuit, breaker.pause, reason, now)

    return step


def probing(breaker: Breaker, token: UUID) -> Step:
    """Somebody would be the probe, where it is time for one and there is none."""

    def step(circuit: Circuit, now: datetime) -> Circuit:
        due = circuit.may_pass_at
        if circuit.state is CircuitState.CLOSED or due is None or due > now:
            return circuit
        first = circuit.state is CircuitState.OPEN
        until = now + breaker.timeout + SLACK
        return replace(
            circuit,
            state=CircuitState.HALF_OPEN,
            probe=token,
            probe_until=until,
            changes=circuit.changes + first,
        )

    return step


def answered(token: UUID) -> Step:
    """The probe went well."""

    def step(circuit: Circuit, _: datetime) -> Circuit:
        return Circuit(changes=circuit.changes + 1) if _probes(circuit, token) else circuit

    return step


def failed_again(breaker: Breaker, token: UUID, reason: str) -> Step:
    """The probe failed."""

    def step(circuit: Circuit, now: datetime) -> Circuit:
        if not _probes(circuit, token):
            return circuit
        pause = min(2 * (circuit.pause or breaker.pause), breaker.longest_pause)
        return _opened(circuit, pause, reason, now)

    return step


def given_back(token: UUID) -> Step:
    """The probe ended without anything being known of the dependency: the next call is the probe."""

    def step(circuit: Circuit, now: datetime) -> Circuit:
        return replace(circuit, probe=None, probe_until=now) if _probes(circuit, token) else circuit

    return step


def _probes(circuit: Circuit, token: UUID) -> bool:
    return circuit.state is CircuitState.HALF_OPEN and circuit.probe == token


def _opened(circuit: Circuit, pause: timedelta, reason: str, now: datetime) -> Circuit:
    return Circuit(
        state=CircuitState.OPEN,
        retry_at=now + pause,
        pause=pause,
        reason=reason[:MOST_REASON],
        changes=circuit.changes + 1,
    )
