"""From the rollups analytics said to the data sets: of the operations report, and of a report over a period."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from reports.dataset import REST, EventLine, OperationsData, Runs, TaskLine, TimeLine, add, day_starts, hour_starts
from reports.days import HeardDay
from reports.periods import PeriodData

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from carillon.contracts import RollupRow, RollupsComputed
    from reports.periods import Period

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
        notes=tuple(_notes((*rollups.hourly, *rollups.daily))),
    )


def days_in(rollups: RollupsComputed) -> list[HeardDay]:
    """What these rollups say of each day, also of those on which nothing happened."""
    as_of = _utc(rollups.watermark)
    rows: Mapping[datetime, list[RollupRow]] = {start: [] for start in day_starts(as_of)}
    for row in _within(rollups.daily, list(rows)):
        rows[_utc(row.bucket)].append(row)
    return [HeardDay(day=start.date(), as_of=as_of, rows=tuple(of_day)) for start, of_day in rows.items()]


def collect_period(period: Period, heard: Sequence[HeardDay]) -> PeriodData:
    """Arrange the days heard of, at least one, by task and by day; of failures only the tasks that have any."""
    rows = [row for day in heard for row in day.rows]
    tasks = _by_task(rows)
    if period.report_type == "failures":
        tasks = tuple(line for line in tasks if line.failed)
        names = {line.name for line in tasks}
        rows = [row for row in rows if printable(row.name) in names]
    return PeriodData(
        period=period,
        as_of=max(day.as_of for day in heard),
        tasks=tasks,
        days=_by_time(rows, [_start_of(day.day) for day in heard]),
        notes=(*_gaps(period, heard), *_notes(rows)),
    )


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _gaps(period: Period, heard: Sequence[HeardDay]) -> Iterable[str]:
    wanted = period.days
    if missing := len(wanted) - len(heard):
        first = min(set(wanted) - {day.day for day in heard})
        yield f"Left out, for nothing was heard of them: {missing} of {len(wanted)} days, the first of them {first}."
    early = [day for day in heard if day.as_of < _start_of(day.day + timedelta(days=1))]
    for day in early[-1:]:
        yield f"Counted before their end: {len(early)} of {len(heard)} days, the last of them {day.day}."


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


def _notes(rows: Iterable[RollupRow]) -> Iterable[str]:
    if any(row.name == REST for row in rows):
        yield f"The less frequent names arrived counted together, as {REST}."


def printable(name: str) -> str:
    """The name as every format can show it: no control characters, at most 200 characters."""
    shown = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name) or "(no name)"
    return shown if len(shown) <= NAME_LIMIT else shown[: NAME_LIMIT - 1] + "…"
