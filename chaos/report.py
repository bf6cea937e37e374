"""The table: as lines while it grows, as JSON for machines, and as a page for people."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine import machine, versions
from chaos.errors import ChaosError
from chaos.matrix import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- results: written by `python -m chaos --publish` -->", "<!-- end of results -->"
HEAD = (
    "| scenario | transport | seed | tasks | faults that happened | accepted | indeterminate | completed | dead"
    " | cancelled | LOST | DUP_RUN | DUP_EFFECT | STUCK | recovery, s | verdict |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    """One row, as it is printed."""
    recovery = "-" if row.recovery_seconds is None else f"{row.recovery_seconds:.1f} s"
    text = (
        f"{row.scenario:<27} {row.transport:<8} seed {row.seed} {row.verdict:<11} {row.seconds:5.1f} s"
        f"  accepted {row.accepted}, indeterminate {row.indeterminate}, completed {row.completed}, dead {row.dead},"
        f" cancelled {row.cancelled}, LOST {row.lost}, DUP_RUN {row.dup_run}, DUP_EFFECT {row.dup_effect},"
        f" STUCK {row.stuck}, recovery {recovery}; {_faults(row)}"
    )
    return "\n".join([text, *(f"    {complaint}" for complaint in row.complaints)])


def write(rows: Sequence[Row], profile: str, folder: Path) -> Path:
    """Every row of this run, not the best, as a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{profile}.json"
    whole = {
        "profile": profile,
        "machine": machine(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }
    file.write_text(json.dumps(whole, indent=2) + "\n")
    return file


def read(file: Path, profile: str) -> list[Row]:
    """The rows of an earlier run; raises `ChaosError` when that was of another profile, or is none."""
    try:
        whole = json.loads(file.read_text())
        rows = [Row(**row) for row in whole["rows"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        message = f"{file} is no table of an earlier run ({error!r}); name one of {RESULTS}"
        raise ChaosError(message) from error
    if whole["profile"] != profile:
        message = f"{file} is of the profile {whole['profile']}, and this run is of {profile}; add --profile"
        raise ChaosError(message)
    return rows


def publish(rows: Sequence[Row], profile: str) -> None:
    """Put the table into the page, between its marks; raises `ValueError` when a mark is gone."""
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN!r} and {END!r}, between which the table goes")
    PAGE.write_text(f"{before}{BEGIN}\n\n{_section(rows, profile)}\n\n{END}{after}")


def _section(rows: Sequence[Row], profile: str) -> str:
    about = machine()
    told = f"{about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB, {about['system']}"
    matrix = [row for row in rows if not row.scenario.startswith("control:")]
    controls = [row for row in rows if row.scenario.startswith("control:")]
    parts = [
        f"Profile `{profile}`, {time.strftime('%Y-%m-%d')}, on {told}: every run of it, not the best.",
        "\n".join([HEAD, *map(_cells, matrix)]),
    ]
    if controls:
        parts += ["The negative controls of the same run:", "\n".join(_control_table(controls))]
    return "\n\n".join(parts)


def _cells(row: Row) -> str:
    recovery = "" if row.recovery_seconds is None else f"{row.recovery_seconds:.1f}"
    counts = (row.accepted, row.indeterminate, row.completed, row.dead, row.cancelled)
    found = (row.lost, row.dup_run, row.dup_effect, row.stuck)
    cells = (row.scenario, row.transport, row.seed, row.tasks, _faults(row), *counts, *found, recovery, row.verdict)
    return f"| {' | '.join(map(str, cells))} |"


def _control_table(rows: Iterable[Row]) -> Iterable[str]:
    yield "| control | transport | what was taken away, and the fault | what the checker found | verdict |"
    yield "|---|---|---|---|---|"
    for row in rows:
        found = "; ".join(c.partition(":")[0] for c in row.complaints if c[:1].isupper())
        yield f"| {row.scenario.partition(':')[2]} | {row.transport} | {row.title} | {found} | {row.verdict} |"


def _faults(row: Row) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.faults.items()) or "no fault"
