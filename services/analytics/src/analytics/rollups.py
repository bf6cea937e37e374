"""What a rollup is, and how many of them fit into one event."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from analytics.counts import EventCount, RunCount

Kind = Literal["run", "event"]
#: The name of what was folded together.
OTHER = "(other)"


@dataclass(frozen=True, slots=True, order=True)
class Rollup:
    """One bucket of one series."""

    bucket: datetime
    kind: Kind
    name: str
    state: str
    count: int
    seconds: float = 0.0


def rolled_up(runs: Iterable[RunCount], events: Iterable[EventCount]) -> list[Rollup]:
    """Make rollups of the ledger's counts; events have the one state `said`."""
    of_runs = [Rollup(run.bucket, "run", run.task, run.state, run.count, run.seconds) for run in runs]
    return of_runs + [Rollup(event.bucket, "event", event.type, "said", event.count) for event in events]


def folded(rows: Sequence[Rollup], limit: int) -> list[Rollup]:
    """Return at most `limit` rows with the same totals: the most frequent names as they are, the others as one."""
    if len(rows) <= limit:
        return sorted(rows)
    # Folding leaves at most one row for each of these, so this much of the limit is theirs.
    room = limit - len({(row.bucket, row.kind, row.state) for row in rows})
    kept: set[tuple[str, str]] = set()
    for series, size in _by_frequency(rows):
        if size > room:
            break
        room -= size
        kept.add(series)
    return sorted(_merged(row if (row.kind, row.name) in kept else replace(row, name=OTHER) for row in rows))


def _by_frequency(rows: Iterable[Rollup]) -> list[tuple[tuple[str, str], int]]:
    """List each (kind, name) with its number of rows, the most frequent first."""
    total: defaultdict[tuple[str, str], int] = defaultdict(int)
    size: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        total[row.kind, row.name] += row.count
        size[row.kind, row.name] += 1
    return [(series, size[series]) for series in sorted(total, key=lambda series: (-total[series], series))]


def _merged(rows: Iterable[Rollup]) -> list[Rollup]:
    groups: defaultdict[tuple[datetime, Kind, str, str], list[Rollup]] = defaultdict(list)
    for row in rows:
        groups[row.bucket, row.kind, row.name, row.state].append(row)
    return [Rollup(*key, sum(r.count for r in group), sum(r.seconds for r in group)) for key, group in groups.items()]
