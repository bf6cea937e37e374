"""The program that writes a report over a period: `python -m reports.period_rendering FOLDER STEM FORMAT`.

The data set is on its input. What is said of the other program, `reports.rendering`, holds for this one, too.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reports.files import LAST_RESORT_SECONDS, UNEQUAL
from reports.formats import csv_file, html_file, json_file, pdf_file, xlsx_file
from reports.layout import PERIOD_TITLES, lay_out_period, period_totals_of
from reports.periods import PeriodData

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reports.files import FileFormat
    from reports.periods import PeriodTotals


def _write_html(data: PeriodData, path: Path) -> None:
    html_file.write(lay_out_period(data), {}, path)


def _write_pdf(data: PeriodData, path: Path) -> None:
    pdf_file.write(lay_out_period(data), data.as_of, {}, path)


def _read_html(path: Path) -> PeriodTotals:
    return period_totals_of(html_file.read_tables(path, PERIOD_TITLES))


def _read_pdf(path: Path) -> PeriodTotals:
    return period_totals_of(pdf_file.read_tables(path, PERIOD_TITLES))


_WRITERS: Mapping[FileFormat, Callable[[PeriodData, Path], None]] = {
    "html": _write_html,
    "pdf": _write_pdf,
    "xlsx": xlsx_file.write_period,
    "csv": csv_file.write_period,
    "json": json_file.write_period,
}
_READERS: Mapping[FileFormat, Callable[[Path], PeriodTotals]] = {
    "html": _read_html,
    "pdf": _read_pdf,
    "xlsx": xlsx_file.read_period_totals,
    "csv": csv_file.read_period_totals,
    "json": json_file.read_period_totals,
}


def write(data: PeriodData, kind: FileFormat, path: Path) -> str:
    """Write one file; returns what is wrong with it, or nothing."""
    _WRITERS[kind](data, path)
    found = _READERS[kind](path)
    return "" if found == data.totals else f"the {kind} file adds up to {found}, its data set to {data.totals}"


def main() -> int:
    """Render what is on standard input; the exit code says whether the file may be kept."""
    signal.alarm(LAST_RESORT_SECONDS)
    folder, stem = Path(sys.argv[1]), sys.argv[2]
    kind: FileFormat = sys.argv[3]  # type: ignore[assignment] # as the worker, which knows the formats, wrote it
    wrong = write(PeriodData.model_validate_json(sys.stdin.buffer.read()), kind, folder / f"{stem}.{kind}")
    sys.stderr.write(wrong)
    return UNEQUAL if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
