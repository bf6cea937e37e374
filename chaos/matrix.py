"""Playing scenarios and controls one after another, and what each of them comes to."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.checker import Verdict, check
from chaos.controls import CONTROLS, Control
from chaos.scenarios import ALL
from chaos.stage import Stage, stage

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.profiles import Profile
    from chaos.servers import Servers

#: A control's runs do not end; nobody waits for them as long.
CONTROL_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Turn:
    """One scenario, or control, on one transport with one seed."""

    name: str
    title: str
    transport: str
    seed: int
    play: Callable[[Stage], Awaitable[None]]
    control: Control | None = None
    alone: bool = False


@dataclass
class Row:
    """A line of the table."""

    scenario: str
    title: str
    transport: str
    seed: int
    seconds: float
    verdict: str
    tasks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    indeterminate: int = 0
    completed: int = 0
    dead: int = 0
    cancelled: int = 0
    recovered: int = 0
    lost: int = 0
    dup_run: int = 0
    dup_effect: int = 0
    stuck: int = 0
    recovery_seconds: float | None = None
    complaints: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether this is as it should be; of a control: whether the checker noticed."""
        return self.verdict in {"pass", "noticed"}


def turns(profile: Profile, *, only: set[str], transports: set[str], seeds: tuple[int, ...]) -> Iterator[Turn]:
    """What is to be played, in order. `only` names scenarios whatever the profile plays; empty is the profile's."""
    for seed in seeds:
        for scenario in ALL:
            whole = profile.everything or scenario.name in only
            for transport in scenario.transports if whole else scenario.quick:
                if transport in transports and (not only or scenario.name in only):
                    yield Turn(scenario.name, scenario.title, transport, seed, scenario.play, None, scenario.alone)
    for control in CONTROLS:
        if control.transport in transports and (not only or only & {control.name, "controls"}):
            yield Turn(control.name, control.title, control.transport, seeds[0], control.run, control, control.alone)


async def played(turn: Turn, servers: Servers, profile: Profile, number: int, results: Path) -> Row:
    """Play one turn and check it. What goes wrong in the harness itself is a failure too.

    Journals and logs of what failed are kept below `results`.
    """
    began = time.monotonic()
    if turn.control is not None:
        profile = replace(profile, settle=CONTROL_SETTLE_SECONDS, kill_runs=0, fault=max(profile.fault, 8.0))
    folder = servers.home
    try:
        async with stage(servers, profile, turn.transport, turn.seed, f"{number:03}") as opened:
            folder = opened.folder
            await turn.play(opened)
            evidence = await opened.evidence()
        row = _row(turn, check(evidence), len(evidence.submits))
    except Exception as error:  # noqa: BLE001 - the matrix goes on, and this line of it says why it failed
        row = _unfinished(turn, error)
    row.seconds = round(time.monotonic() - began, 1)
    _keep_or_forget(folder, turn, row, results)
    return row


def _row(turn: Turn, verdict: Verdict, tasks: int) -> Row:
    recovery = verdict.recovery_seconds
    return Row(
        scenario=turn.name,
        title=turn.title,
        transport=turn.transport,
        seed=turn.seed,
        seconds=0.0,
        verdict=_word(turn, verdict),
        tasks=tasks,
        faults=verdict.faults,
        accepted=verdict.accepted,
        indeterminate=verdict.indeterminate,
        completed=verdict.completed,
        dead=verdict.dead,
        cancelled=verdict.cancelled,
        recovered=verdict.recovered,
        lost=verdict.count("LOST"),
        dup_run=verdict.dup_run,
        dup_effect=verdict.count("DUP_EFFECT"),
        stuck=verdict.count("STUCK"),
        recovery_seconds=None if recovery is None or math.isinf(recovery) else round(recovery, 1),
        complaints=verdict.complaints(),
    )


def _word(turn: Turn, verdict: Verdict) -> str:
    if turn.control is None:
        return "pass" if verdict.passed else "FAIL"
    # A fault that did not happen proves nothing, whatever else was found.
    noticed = turn.control.finds & verdict.violations.keys() and "NO_FAULT" not in verdict.violations
    return "noticed" if noticed else "NOT NOTICED"


def _unfinished(turn: Turn, error: Exception) -> Row:
    sentence = f"not played to its end: {error!r}"[:2_000]
    return Row(turn.name, turn.title, turn.transport, turn.seed, 0.0, "FAIL", complaints=[sentence])


def _keep_or_forget(folder: Path, turn: Turn, row: Row, results: Path) -> None:
    if row.passed or not folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept = results / "failed" / f"{turn.name.replace(':', '-')}-{turn.transport}-{turn.seed}"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("key", "storage"))
    row.complaints.append(f"its journals and logs are kept in {kept}")
