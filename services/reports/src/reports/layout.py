"""The report as a page: titles, figures, tables and remarks as text, for the formats people read (HTML and PDF)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from reports import wording
from reports.dataset import DAYS, HOURS, TITLE, Runs, Totals, add, folded_events, folded_tasks
from reports.periods import PeriodTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reports.dataset import OperationsData
    from reports.periods import PeriodData

#: A page lists this many tasks or event types; the spreadsheet lists them all.
LINE_LIMIT = 40
_COUNTS = {"Runs": "ended", "Completed": "completed", "Failed": "failed", "Cancelled": "cancelled", "Other": "other"}
_MEAN, _TOTAL = "Mean s", "Total s"
_FOLDED = f"Tables here show {LINE_LIMIT} lines at most; the spreadsheet and the CSV file hold every line."
_RECENT, _FORTNIGHT = f"Last {HOURS} hours", f"Last {DAYS} days"
#: The columns of figures there may be, and the titles of the tables by id: what a reader of a page looks for.
COLUMNS = (*_COUNTS, _MEAN, _TOTAL, _RECENT, _FORTNIGHT)
TITLES = {
    "tasks": f"By task, last {HOURS} hours",
    "days": f"By day, last {DAYS} days (UTC)",
    "events": "Events said",
}
#: The same of a report over a period, which has no table of events.
PERIOD_TITLES = {"tasks": "By task", "days": "By day (UTC)"}


class Table(BaseModel):
    """A table of text. The first column names the line, the others are numbers."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: tuple[str, ...]
    #: Said in place of a table without rows.
    empty: str


class Page(BaseModel):
    """Everything a page says, in the order it says it."""

    model_config = ConfigDict(frozen=True)

    title: str
    heading: str
    period: str
    as_of: str
    #: True when no run ended in the period, so that the page says what to do about it.
    idle: bool
    advice: str
    headlines: tuple[tuple[str, str, str], ...]
    tasks: Table
    days: Table
    events: Table | None
    notes: tuple[str, ...]


def lay_out(data: OperationsData) -> Page:
    """Put the data set into words."""
    return Page(
        title=wording.title(data),
        heading=TITLE,
        period=wording.period(data),
        as_of=f"{wording.moment(data.as_of)} UTC",
        idle=not data.recent.ended,
        advice=wording.advice(),
        headlines=tuple(wording.headlines(data.recent, data.tasks, f"in the last {HOURS} hours")),
        tasks=_task_table(data),
        days=_day_table(data),
        events=_event_table(data),
        notes=tuple(_notes(data)),
    )


def lay_out_period(data: PeriodData) -> Page:
    """Put the data set of a period into words."""
    tasks = [(line.name, line) for line in folded_tasks(data.tasks, LINE_LIMIT)]
    days = [(f"{wording.weekday(line.start)} {line.start.year}", line) for line in data.days]
    nothing = f"{wording.nothing(data)}."
    folded = (_FOLDED,) if len(data.tasks) > LINE_LIMIT else ()
    return Page(
        title=wording.period_title(data),
        heading=data.period.title,
        period=f"{wording.days(data.period)}, in UTC",
        as_of=f"{wording.moment(data.as_of)} UTC",
        idle=not data.total.ended,
        advice=nothing,
        headlines=tuple(wording.headlines(data.total, data.tasks, "in these days")),
        tasks=_run_table("tasks", (PERIOD_TITLES["tasks"], "Task"), tasks, nothing),
        days=_run_table("days", (PERIOD_TITLES["days"], "Day"), days if data.total.ended else [], nothing),
        events=None,
        notes=(*data.notes, *folded, f"{wording.SUCCESS_RULE} Mean s and Total s are seconds of execution."),
    )


def period_totals_of(tables: Mapping[str, Iterable[Mapping[str, str]]]) -> PeriodTotals:
    """Add up the tables of a report over a period, as `totals_of` does."""
    return PeriodTotals(**{key: add(_read_runs(row) for row in tables[key]) for key in PERIOD_TITLES})


def totals_of(tables: Mapping[str, Iterable[Mapping[str, str]]]) -> Totals:
    """Add up tables that were read back; each row is its cells by column title."""
    events = list(tables["events"])
    return Totals(
        recent=add(_read_runs(row) for row in tables["tasks"]),
        fortnight=add(_read_runs(row) for row in tables["days"]),
        events_recent=sum(_read_number(row[_RECENT]) for row in events),
        events_fortnight=sum(_read_number(row[_FORTNIGHT]) for row in events),
    )


def _task_table(data: OperationsData) -> Table:
    lines = [(line.name, line) for line in folded_tasks(data.tasks, LINE_LIMIT)]
    return _run_table("tasks", (TITLES["tasks"], "Task"), lines, f"No run ended in the last {HOURS} hours.")


def _day_table(data: OperationsData) -> Table:
    lines = [(wording.weekday(line.start), line) for line in reversed(data.days)]
    used = lines if data.totals.fortnight.ended else []
    return _run_table("days", (TITLES["days"], "Day"), used, f"No run ended in the last {DAYS} days.")


def _run_table(key: str, titles: tuple[str, str], lines: Sequence[tuple[str, Runs]], empty: str) -> Table:
    """The table with its title, and that of its first column."""
    title, first = titles
    total = add(runs for _, runs in lines)
    counts = [name for name, field in _COUNTS.items() if field != "other" or total.other]
    return Table(
        id=key,
        title=title,
        columns=(first, *counts, _MEAN, _TOTAL),
        rows=tuple((name, *_cells(runs, counts)) for name, runs in lines),
        total=("Total", *_cells(total, counts)),
        empty=empty,
    )


def _cells(runs: Runs, counts: Sequence[str]) -> tuple[str, ...]:
    figures = (wording.number(getattr(runs, _COUNTS[name])) for name in counts)
    return (*figures, wording.seconds(runs.mean_ms), wording.seconds(runs.execution_ms))


def _event_table(data: OperationsData) -> Table:
    lines, totals = folded_events(data.events, LINE_LIMIT), data.totals
    number = wording.number
    return Table(
        id="events",
        title=TITLES["events"],
        columns=("Event", _RECENT, _FORTNIGHT),
        rows=tuple((line.name, number(line.recent), number(line.fortnight)) for line in lines),
        total=("Total", number(totals.events_recent), number(totals.events_fortnight)),
        empty=f"No event was said in the last {DAYS} days.",
    )


def _notes(data: OperationsData) -> Iterable[str]:
    yield from data.notes
    if max(len(data.tasks), len(data.events)) > LINE_LIMIT:
        yield _FOLDED
    yield f"{wording.SUCCESS_RULE} Mean s and Total s are seconds of execution. The last hour and day are not over yet."


def _read_runs(row: Mapping[str, str]) -> Runs:
    counts = {field: _read_number(row.get(name, "0")) for name, field in _COUNTS.items() if field != "ended"}
    return Runs(**counts, execution_ms=round(float(row[_TOTAL].replace(",", "")) * 1000))


def _read_number(cell: str) -> int:
    return int(cell.replace(",", ""))
