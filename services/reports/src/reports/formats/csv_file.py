"""CSV: every line of every table in one rectangle, for spreadsheets and programs."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from reports.dataset import Runs, Totals, add
from reports.periods import PeriodTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from reports.dataset import OperationsData, TaskLine, TimeLine
    from reports.periods import PeriodData

COLUMNS = (
    "table",
    "start_utc",
    "name",
    "runs",
    "completed",
    "failed",
    "cancelled",
    "other",
    "mean_seconds",
    "total_seconds",
    "said_24_hours",
    "said_14_days",
)
#: Of a report over a period, which counts no events.
PERIOD_COLUMNS = COLUMNS[:-2]
#: What a spreadsheet may take for a formula, full-width forms included; and the guard itself, so that it can be undone.
_DANGEROUS = tuple("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")


def guarded(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text.removeprefix("'")


def write(data: OperationsData, path: Path) -> None:
    """Write the data set; numbers are bare, times are ISO 8601, names are guarded."""
    _put(path, COLUMNS, _rows(data))


def write_period(data: PeriodData, path: Path) -> None:
    """Write the data set of a period in the same way."""
    _put(path, PERIOD_COLUMNS, (*_task_rows(data.tasks), *_time_rows("day", data.days)))


def read_totals(path: Path) -> Totals:
    """Add up the file as a stranger would read it."""
    rows = _read(path)
    events = [row for row in rows if row["table"] == "event"]
    return Totals(
        recent=_total(rows, "task"),
        fortnight=_total(rows, "day"),
        events_recent=sum(int(row["said_24_hours"]) for row in events),
        events_fortnight=sum(int(row["said_14_days"]) for row in events),
    )


def read_period_totals(path: Path) -> PeriodTotals:
    """Add up the file of a period."""
    rows = _read(path)
    return PeriodTotals(tasks=_total(rows, "task"), days=_total(rows, "day"))


def _put(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _total(rows: Iterable[Mapping[str, str]], table: str) -> Runs:
    return add(_runs(row) for row in rows if row["table"] == table)


def _task_rows(tasks: Iterable[TaskLine]) -> Iterable[dict[str, object]]:
    for task in tasks:
        yield {"table": "task", "name": guarded(task.name), **_figures(task)}


def _time_rows(table: str, lines: Iterable[TimeLine]) -> Iterable[dict[str, object]]:
    for line in lines:
        yield {"table": table, "start_utc": f"{line.start:%Y-%m-%dT%H:%M:%SZ}", **_figures(line)}


def _rows(data: OperationsData) -> Iterable[dict[str, object]]:
    yield from _task_rows(data.tasks)
    yield from _time_rows("hour", data.hours)
    yield from _time_rows("day", data.days)
    for event in data.events:
        said = {"said_24_hours": event.recent, "said_14_days": event.fortnight}
        yield {"table": "event", "name": guarded(event.name), **said}


def _figures(runs: Runs) -> dict[str, object]:
    return {
        "runs": runs.ended,
        "completed": runs.completed,
        "failed": runs.failed,
        "cancelled": runs.cancelled,
        "other": runs.other,
        "mean_seconds": "" if runs.mean_ms is None else f"{runs.mean_ms / 1000:.6f}",
        "total_seconds": f"{runs.execution_ms / 1000:.3f}",
    }


def _runs(row: Mapping[str, str]) -> Runs:
    return Runs(
        completed=int(row["completed"]),
        failed=int(row["failed"]),
        cancelled=int(row["cancelled"]),
        other=int(row["other"]),
        execution_ms=round(float(row["total_seconds"]) * 1000),
    )
