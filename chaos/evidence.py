"""What is known after a scenario: the ledgers that Carillon does not write, and what Carillon itself claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

#: States after which nothing changes; spelled here, so that a mistake in Carillon's own list is not shared.
TERMINAL = frozenset({"completed", "failed", "cancelled", "partial"})

Status = Literal["accepted", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Submit:
    """The client is about to submit. The run's id is known before only where the client chooses it."""

    ticket: str
    task: str
    run: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client heard: accepted, refused by a sentence about the request, or nothing that it could rely on."""

    ticket: str
    status: Status
    run: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Mark:
    """What a task wrote about itself: `start`, `end`, or `raise` where its code fails on purpose."""

    kind: str
    run: str
    ticket: str
    attempt: int
    pid: int
    at: float
    domain: str = "bells"


@dataclass(frozen=True, slots=True)
class Effect:
    """The one row that a run leaves in the effects' own database. `answers` is the run whose event it answers."""

    run: str
    answers: str | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """What Carillon says about a run."""

    id: str
    state: str
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class End:
    """A row of `carillon.runs` became terminal; noted by a trigger of ours, so that a second end cannot hide."""

    run: str
    state: str
    finished_at: float


@dataclass(frozen=True, slots=True)
class Depth:
    """What lies in a queue at the end."""

    ready: int
    unacknowledged: int


@dataclass
class Evidence:
    """One scenario's. `faults` are counts by name of what was to happen; `broken` are a scenario's own complaints."""

    submits: Sequence[Submit] = ()
    answers: Sequence[Answer] = ()
    marks: Sequence[Mark] = ()
    effects: Sequence[Effect] = ()
    #: Every try of an effect, as run and attempt.
    tries: Sequence[tuple[str, int]] = ()
    runs: Sequence[RunRow] = ()
    ends: Sequence[End] = ()
    queues: Mapping[str, Depth] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    #: Seconds from healing to the old rate; infinite when it did not come back; None when a scenario has no rate.
    recovery_seconds: float | None = None
    #: Tasks whose runs may end failed although their code did not raise, because this is what the scenario is about.
    may_fail: frozenset[str] = frozenset()
    broken: Sequence[str] = ()
