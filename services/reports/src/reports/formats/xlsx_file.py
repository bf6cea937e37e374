"""XLSX: typed sheets with frozen headers, and charts that Excel draws itself."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import xlsxwriter
from python_calamine import CalamineWorkbook

from reports import wording
from reports.dataset import TITLE, Runs, Totals, add
from reports.palette import COLOURS, FAINT, HEAD, INK, RULE
from reports.periods import PeriodTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

    from reports.dataset import OperationsData, TimeLine
    from reports.periods import PeriodData

SUMMARY, TASKS, HOURS, DAYS, EVENTS, ABOUT = "Summary", "By task", "By hour", "By day", "Events", "About"
#: What the first column of a sheet holds.
_KEYS = {TASKS: "Task", HOURS: "Hour (UTC)", DAYS: "Day (UTC)", EVENTS: "Event"}
_COUNTS = ("Runs", "Completed", "Failed", "Cancelled", "Other")
_FIGURES = (*_COUNTS, "Mean seconds", "Total seconds")
#: A formula in a name must stay a name.
_OPTIONS = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}


class Looks(NamedTuple):
    """The cell formats of one workbook."""

    title: Format
    faint: Format
    label: Format
    figure: Format
    share: Format
    precise: Format
    head: Format
    head_right: Format
    text: Format
    count: Format
    seconds: Format
    hour: Format
    day: Format


def write(data: OperationsData, path: Path) -> None:
    """Write the workbook; its dates are the report's, so the same data gives the same bytes."""
    book = _book(path, wording.title(data), data.as_of)
    looks = _looks(book)
    summary = book.add_worksheet(SUMMARY)
    _table(book, looks, TASKS, [(line.name, line) for line in data.tasks])
    _table(book, looks, HOURS, _timed(data.hours))
    _table(book, looks, DAYS, _timed(data.days))
    _events(book, looks, data)
    _summary(book, summary, looks, data)
    book.close()


def write_period(data: PeriodData, path: Path) -> None:
    """Write the workbook of a period in the same way: its tasks, its days, and what there is to know of them."""
    book = _book(path, wording.period_title(data), data.as_of)
    looks = _looks(book)
    _table(book, looks, TASKS, [(line.name, line) for line in data.tasks])
    _table(book, looks, DAYS, _timed(data.days))
    about = _sheet(book, looks, ABOUT, (wording.period_title(data),), (100,))
    for row, remark in enumerate((wording.period_summary(data), wording.SUCCESS_RULE), start=1):
        about.write_string(row, 0, remark, looks.faint)
    book.close()


def read_period_totals(path: Path) -> PeriodTotals:
    """Add up the sheets of a period."""
    book = CalamineWorkbook.from_path(path)
    return PeriodTotals(tasks=_total(book, TASKS), days=_total(book, DAYS))


def read_totals(path: Path) -> Totals:
    """Add up the sheets with another library than the one that wrote them."""
    book = CalamineWorkbook.from_path(path)
    events = book.get_sheet_by_name(EVENTS).to_python()[1:]
    return Totals(
        recent=_total(book, TASKS),
        fortnight=_total(book, DAYS),
        events_recent=sum(_whole(row[1]) for row in events),
        events_fortnight=sum(_whole(row[2]) for row in events),
    )


def _book(path: Path, title: str, as_of: datetime) -> Workbook:
    book = xlsxwriter.Workbook(str(path), _OPTIONS)
    book.set_properties({"title": title, "author": "Carillon", "created": _naive(as_of)})
    return book


def _total(book: CalamineWorkbook, sheet: str) -> Runs:
    return add(_runs(row) for row in book.get_sheet_by_name(sheet).to_python()[1:])


def _looks(book: Workbook) -> Looks:
    make = book.add_format
    bold = {"bold": True, "align": "left"}
    head = {"bold": True, "font_color": "#ffffff", "bg_color": HEAD, "valign": "vcenter"}
    return Looks(
        title=make({"bold": True, "font_size": 18, "font_color": INK}),
        faint=make({"font_color": FAINT, "text_wrap": True, "valign": "top"}),
        label=make({"font_color": FAINT, "valign": "top"}),
        figure=make({**bold, "num_format": "#,##0"}),
        share=make({**bold, "num_format": "0.0 %"}),
        precise=make({**bold, "num_format": "#,##0.000"}),
        head=make(head),
        head_right=make({**head, "align": "right"}),
        text=make({}),
        count=make({"num_format": "#,##0"}),
        seconds=make({"num_format": "#,##0.000"}),
        hour=make({"num_format": "yyyy-mm-dd hh:mm", "align": "left"}),
        day=make({"num_format": "yyyy-mm-dd", "align": "left"}),
    )


def _timed(lines: Sequence[TimeLine]) -> list[tuple[datetime, Runs]]:
    return [(_naive(line.start), line) for line in lines]


def _table(book: Workbook, looks: Looks, name: str, lines: Sequence[tuple[str | datetime, Runs]]) -> None:
    look = {TASKS: looks.text, HOURS: looks.hour, DAYS: looks.day}[name]
    sheet = _sheet(book, looks, name, (_KEYS[name], *_FIGURES), (_width(lines), *[12] * 5, 15, 15))
    for row, (key, runs) in enumerate(lines, start=1):
        _put(sheet, row, 0, key, look)
        counts = (runs.ended, runs.completed, runs.failed, runs.cancelled, runs.other)
        for column, count in enumerate(counts, start=1):
            sheet.write_number(row, column, count, looks.count)
        if runs.mean_ms is not None:
            sheet.write_number(row, 6, runs.mean_ms / 1000, looks.seconds)
        sheet.write_number(row, 7, runs.execution_ms / 1000, looks.seconds)
    sheet.autofilter(0, 0, max(len(lines), 1), len(_FIGURES))


def _width(lines: Sequence[tuple[str | datetime, object]]) -> int:
    """Wide enough for the longest name, as far as a screen goes."""
    return min(max((len(str(key)) for key, _ in lines), default=0) + 4, 90)


def _events(book: Workbook, looks: Looks, data: OperationsData) -> None:
    width = _width([(line.name, line) for line in data.events])
    sheet = _sheet(book, looks, EVENTS, (_KEYS[EVENTS], "Last 24 hours", "Last 14 days"), (width, 16, 16))
    for row, line in enumerate(data.events, start=1):
        sheet.write_string(row, 0, line.name, looks.text)
        sheet.write_number(row, 1, line.recent, looks.count)
        sheet.write_number(row, 2, line.fortnight, looks.count)
    sheet.autofilter(0, 0, max(len(data.events), 1), 2)


def _sheet(book: Workbook, looks: Looks, name: str, heads: Sequence[str], widths: Iterable[int]) -> Worksheet:
    sheet = book.add_worksheet(name)
    sheet.hide_gridlines(2)
    sheet.freeze_panes(1, 0)
    sheet.repeat_rows(0)
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)
    sheet.set_row(0, 20)
    for column, (head, width) in enumerate(zip(heads, widths, strict=True)):
        sheet.set_column(column, column, width)
        sheet.write_string(0, column, head, looks.head if column == 0 else looks.head_right)
    return sheet


def _summary(book: Workbook, sheet: Worksheet, looks: Looks, data: OperationsData) -> None:
    sheet.hide_gridlines(2)
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)
    sheet.set_column(0, 0, 20)
    sheet.set_column(1, 1, 44)
    sheet.write_string(0, 0, TITLE, looks.title)
    sheet.write_string(1, 0, wording.period(data), looks.label)
    row = 3
    for label, figure, look in _facts(looks, data.recent, data):
        sheet.write_string(row, 0, label, looks.label)
        _put(sheet, row, 1, figure, look)
        row += 1
    for note in _remarks(data):
        sheet.merge_range(row, 0, row, 1, "", looks.faint)
        sheet.write_string(row, 0, note, looks.faint)
        sheet.set_row(row, 48)
        row += 1
    states = [state for state in _COUNTS[1:] if state != "Other" or add(data.hours).other or add(data.days).other]
    for title, name, count, place in (
        ("Runs per hour, last 24 hours (UTC)", HOURS, len(data.hours), "D4"),
        ("Runs per day, last 14 days (UTC)", DAYS, len(data.days), "D20"),
    ):
        sheet.insert_chart(place, _chart(book, title, name, count, states), {"description": title})
    sheet.print_area(0, 0, 38, 14)


def _facts(looks: Looks, recent: Runs, data: OperationsData) -> list[tuple[str, str | float, Format]]:
    rate = wording.NOTHING if recent.success_rate is None else recent.success_rate
    return [
        ("Runs ended", recent.ended, looks.figure),
        ("Completed", recent.completed, looks.figure),
        ("Failed", recent.failed, looks.figure),
        ("Cancelled", recent.cancelled, looks.figure),
        ("Success rate", rate, looks.share),
        ("Execution seconds", recent.execution_ms / 1000, looks.precise),
        ("Busiest task", data.busiest.name if data.busiest else wording.NOTHING, looks.figure),
        ("Events said", data.totals.events_recent, looks.figure),
    ]


def _remarks(data: OperationsData) -> list[str]:
    return [*([] if data.recent.ended else [wording.advice()]), *data.notes, wording.SUCCESS_RULE]


def _chart(book: Workbook, title: str, sheet: str, count: int, states: Sequence[str]) -> object:
    chart = book.add_chart({"type": "column", "subtype": "stacked"})
    for state in states:
        column = 1 + _COUNTS.index(state)
        chart.add_series(
            {
                "name": [sheet, 0, column],
                "categories": [sheet, 1, 0, count, 0],
                "values": [sheet, 1, column, count, column],
                "fill": {"color": COLOURS[state.lower()]},
                "gap": 40,
            }
        )
    form = "hh:mm" if sheet == HOURS else "d mmm"
    chart.set_title({"name": title, "name_font": {"size": 12, "color": INK}, "overlay": False})
    chart.set_x_axis({"num_format": form, "text_axis": True, "num_font": {"size": 8}, "line": {"color": RULE}})
    chart.set_y_axis({"major_gridlines": {"visible": True, "line": {"color": RULE}}, "line": {"none": True}})
    chart.set_legend({"position": "top"})
    chart.set_size({"width": 720, "height": 300})
    return chart


def _put(sheet: Worksheet, row: int, column: int, value: str | float | datetime, look: Format) -> None:
    if isinstance(value, str):
        sheet.write_string(row, column, value, look)
    elif isinstance(value, datetime):
        sheet.write_datetime(row, column, value, look)
    else:
        sheet.write_number(row, column, value, look)


def _runs(row: Sequence[object]) -> Runs:
    completed, failed, cancelled, other = (_whole(cell) for cell in row[2:6])
    milliseconds = round(float(str(row[7])) * 1000)
    return Runs(completed=completed, failed=failed, cancelled=cancelled, other=other, execution_ms=milliseconds)


def _whole(cell: object) -> int:
    return int(float(str(cell)))


def _naive(when: datetime) -> datetime:
    """Excel knows no time zones; every header says UTC."""
    return when.replace(tzinfo=None)
