"""From the rollups analytics said to the data set of the operations report."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reports.dataset import REST, EventLine, OperationsData, Runs, TaskLine, TimeLine, add, day_starts, hour_starts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from carillon.contracts import RollupRow, RollupsComputed

#: No format shows a longer name; Excel refuses cells over 32,767 characters.
NAME_LIMIT = 200
#: Excel's XML and PostgreSQL's JSON both refuse some of these; none of them can be seen.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_STATES = ("completed", "failed", "cancelled")


def collect_operations(rollups: RollupsComputed) -> OperationsData:
    """Arrange rollups by task, hour, day and event type; hours and days without a row are zero."""
    as_of = _utc(rollups.watermark)
    hourly = _within(rollups.hourly, hour_starts(as_of))
    daily = _within(rollups.daily, day_starts(as_of))
    return OperationsData(
        as_of=as_of,
        tasks=_by_task(hourly),
        hours=_by_time(hourly, hour_starts(as_of)),
        days=_by_time(daily, day_starts(as_of)),
        events=_by_event(hourly, daily),
        notes=tuple(_notes(rollups)),
    )


def _within(rows: Iterable[RollupRow], starts: list[datetime]) -> list[RollupRow]:
    wanted = set(starts)
    return [row for row in rows if _utc(row.bucket) in wanted]


def _utc(when: datetime) -> datetime:
    """The contract promises UTC; a time without a zone is taken at that word, not at the machine's."""
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _counted(row: RollupRow) -> Runs:
    state = row.state if row.state in _STATES else "other"
    return Runs(**{state: row.count, "execution_ms": round(row.seconds * 1000)})


def _by_task(rows: Iterable[RollupRow]) -> tuple[TaskLine, ...]:
    groups: defaultdict[str, list[Runs]] = defaultdict(list)
    for row in rows:
        if row.kind == "run":
            groups[printable(row.name)].append(_counted(row))
    lines = (TaskLine(name=name, **add(group).model_dump()) for name, group in groups.items())
    return tuple(sorted(lines, key=lambda line: (line.name == REST, -line.ended, -line.execution_ms, line.name)))


def _by_time(rows: Iterable[RollupRow], starts: list[datetime]) -> tuple[TimeLine, ...]:
    groups: Mapping[datetime, list[Runs]] = {start: [] for start in starts}
    for row in rows:
        if row.kind == "run":
            groups[_utc(row.bucket)].append(_counted(row))
    return tuple(TimeLine(start=start, **add(group).model_dump()) for start, group in groups.items())


def _by_event(hourly: Iterable[RollupRow], daily: Iterable[RollupRow]) -> tuple[EventLine, ...]:
    recent, fortnight = _said(hourly), _said(daily)
    lines = (EventLine(name=name, recent=recent[name], fortnight=fortnight[name]) for name in {*recent, *fortnight})
    return tuple(sorted(lines, key=lambda line: (line.name == REST, -line.recent, -line.fortnight, line.name)))


def _said(rows: Iterable[RollupRow]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        if row.kind == "event":
            counts[printable(row.name)] += row.count
    return counts


def _notes(rollups: RollupsComputed) -> Iterable[str]:
    if any(row.name == REST for row in (*rollups.hourly, *rollups.daily)):
        yield f"The less frequent names arrived counted together, as {REST}."


def printable(name: str) -> str:
    """The name as every format can show it: no control characters, at most 200 characters."""
    shown = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name) or "(no name)"
    return shown if len(shown) <= NAME_LIMIT else shown[: NAME_LIMIT - 1] + "…"
