"""The checker: from the ledgers alone, what was lost, doubled, or left behind. It knows nothing of Carillon's code."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.evidence import TERMINAL, Effect, Evidence, RunRow

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The old rate has to be back within this many seconds.
RECOVERY_SECONDS = 30.0
#: How many ids of a violation are shown.
SHOWN = 3
#: Tasks that answer the event of a run, and are therefore never submitted by the client.
ANSWERING = "sing"
#: Tasks that say an event that exactly one run has to answer.
SAYING = "chime"


@dataclass(frozen=True)
class Verdict:
    """The counts of a scenario, and what is wrong with it."""

    accepted: int
    indeterminate: int
    completed: int
    dead: int
    cancelled: int
    recovered: int
    dup_run: int
    faults: dict[str, int]
    recovery_seconds: float | None
    #: By name; empty lists are not kept.
    violations: dict[str, list[str]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations

    def count(self, violation: str) -> int:
        """How many there are of a violation."""
        return len(self.violations.get(violation, ()))

    def complaints(self) -> list[str]:
        """Each violation with its number and its first ids."""
        return [
            f"{name} {len(found)}: {', '.join(found[:SHOWN])}{' ...' if len(found) > SHOWN else ''}"
            for name, found in self.violations.items()
        ]


def check(evidence: Evidence) -> Verdict:
    """Hold the ledgers against each other."""
    runs = {run.id: run for run in evidence.runs}
    asked = _Asked(evidence)
    ended = {run.id for run in evidence.runs if run.state in TERMINAL}
    effects = {effect.run for effect in evidence.effects}
    found = {
        "LOST": _lost(asked, runs, effects),
        "STUCK": sorted(run.id for run in evidence.runs if run.state not in TERMINAL),
        "UNEXPECTED": _unexpected(asked, evidence.runs),
        "TWO_RUNS": asked.tickets_with_two_runs(),
        "DUP_EFFECT": _doubled_effects(evidence),
        "DOUBLE_TERMINAL": _repeated(end.run for end in {(e.run, e.finished_at): e for e in evidence.ends}.values()),
        "INNOCENT_DEAD": _innocent_dead(evidence),
        "UNANSWERED": _unanswered(evidence.runs, evidence.effects),
        "LEFT_IN_QUEUE": _left_in_queues(evidence),
        "NO_FAULT": _faults_that_did_not_happen(evidence),
        "SLOW": _slow(evidence),
        "BROKEN": list(evidence.broken),
    }
    states = Counter(run.state for run in evidence.runs if run.id in asked.known)
    starts = Counter(mark.run for mark in evidence.marks if mark.kind == "start")
    return Verdict(
        accepted=len(asked.accepted),
        indeterminate=len(asked.indeterminate),
        completed=states["completed"] + states["partial"],
        dead=states["failed"],
        cancelled=states["cancelled"],
        recovered=len(ended & asked.indeterminate_runs),
        dup_run=sum(1 for count in starts.values() if count > 1),
        faults=dict(evidence.faults),
        recovery_seconds=evidence.recovery_seconds,
        violations={name: ids for name, ids in found.items() if ids},
    )


class _Asked:
    """What the client asked for and heard, by ticket. A run's id comes from the client or from the run's own marks."""

    def __init__(self, evidence: Evidence) -> None:
        self._runs: dict[str, set[str]] = defaultdict(set)
        told = [(s.ticket, s.run) for s in evidence.submits] + [(a.ticket, a.run) for a in evidence.answers]
        for ticket, run in told:
            if run is not None:
                self._runs[ticket].add(run)
        heard = {answer.ticket for answer in evidence.answers if answer.status == "accepted"}
        refused = {answer.ticket for answer in evidence.answers if answer.status == "refused"} - heard
        tickets = {submit.ticket for submit in evidence.submits}
        for mark in evidence.marks:
            if mark.ticket in tickets:
                self._runs[mark.ticket].add(mark.run)
        #: Tickets for which the client heard that the run is accepted.
        self.accepted = heard
        #: Tickets about which nothing is certain.
        self.indeterminate = tickets - heard - refused
        self.indeterminate_runs = {run for ticket in self.indeterminate for run in self._runs[ticket]}
        #: Ids of runs that may exist.
        self.known = {run for ticket in self.accepted | self.indeterminate for run in self._runs[ticket]}
        #: Whether an indeterminate submit may have made a run whose id nobody was told.
        self.unnamed = sum(1 for ticket in self.indeterminate if not self._runs[ticket])

    def run_of(self, ticket: str) -> str | None:
        """The run that a ticket became."""
        return min(self._runs[ticket], default=None)

    def tickets_with_two_runs(self) -> list[str]:
        """One key, two runs: the retry of a submit was taken for another one."""
        return sorted(ticket for ticket, runs in self._runs.items() if len(runs) > 1)


def _lost(asked: _Asked, runs: dict[str, RunRow], effects: set[str]) -> list[str]:
    """Accepted, and either nowhere or said to be completed without having done anything."""
    lost = []
    for ticket in asked.accepted:
        run = asked.run_of(ticket)
        row = runs.get(run) if run is not None else None
        if row is None or (row.state == "completed" and row.id not in effects):
            lost.append(run or ticket)
    return sorted(lost)


def _unexpected(asked: _Asked, runs: Iterable[RunRow]) -> list[str]:
    """Runs that nobody asked for."""
    strangers = [run.id for run in runs if run.id not in asked.known and not _is(run, ANSWERING)]
    return sorted(strangers)[asked.unnamed :]


def _doubled_effects(evidence: Evidence) -> list[str]:
    """One attempt that did its effect twice, which the fence forbids, and events that were answered twice."""
    twice = _repeated(f"{run} attempt {attempt}" for run, attempt in evidence.tries)
    answers = _repeated(effect.answers for effect in evidence.effects if effect.answers is not None)
    return [*twice, *(f"event of {run}" for run in answers)]


def _innocent_dead(evidence: Evidence) -> list[str]:
    raised = {mark.run for mark in evidence.marks if mark.kind == "raise"}
    return sorted(
        run.id
        for run in evidence.runs
        if run.state == "failed" and run.id not in raised and run.task not in evidence.may_fail
    )


def _unanswered(runs: Iterable[RunRow], effects: Iterable[Effect]) -> list[str]:
    """Runs that said an event which nobody answered."""
    answered = {effect.answers for effect in effects}
    return sorted(run.id for run in runs if _is(run, SAYING) and run.state == "completed" and run.id not in answered)


def _left_in_queues(evidence: Evidence) -> list[str]:
    return [
        f"{name}: {depth.ready} ready, {depth.unacknowledged} unacknowledged"
        for name, depth in evidence.queues.items()
        if depth.ready or depth.unacknowledged
    ]


def _faults_that_did_not_happen(evidence: Evidence) -> list[str]:
    if not evidence.faults:
        return ["nothing was counted"]
    return [name for name, count in evidence.faults.items() if count <= 0]


def _slow(evidence: Evidence) -> list[str]:
    seconds = evidence.recovery_seconds
    return [] if seconds is None or seconds <= RECOVERY_SECONDS else [f"{seconds:.0f} s to the old rate"]


def _is(run: RunRow, function: str) -> bool:
    return run.task.partition(".")[2] == function


def _repeated(things: Iterable[str]) -> list[str]:
    return sorted(thing for thing, count in Counter(things).items() if count > 1)
