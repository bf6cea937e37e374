"""The program that writes a report's files: `python -m reports.rendering FOLDER STEM`, with the data set on its input.

It is a process of its own, and a short one: typst, altair and the rest take 200 MB that the worker never has to hold.
Every file is read back by another library and added up before the program says that all went well.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reports.charts import draw
from reports.dataset import OperationsData
from reports.files import LAST_RESORT_SECONDS, UNEQUAL
from reports.formats import csv_file, html_file, pdf_file, xlsx_file
from reports.layout import TITLES, lay_out, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reports.dataset import Totals


def render(data: OperationsData, folder: Path, stem: str) -> None:
    """Write every format into the folder."""
    charts = draw(data)
    csv_file.write(data, folder / f"{stem}.csv")
    xlsx_file.write(data, folder / f"{stem}.xlsx")
    page = lay_out(data)
    html_file.write(page, charts, folder / f"{stem}.html")
    pdf_file.write(page, data.as_of, charts, folder / f"{stem}.pdf")


def read_back(folder: Path, stem: str) -> dict[str, Totals]:
    """What each written file adds up to."""
    return {
        "csv": csv_file.read_totals(folder / f"{stem}.csv"),
        "xlsx": xlsx_file.read_totals(folder / f"{stem}.xlsx"),
        "html": totals_of(html_file.read_tables(folder / f"{stem}.html", TITLES)),
        "pdf": totals_of(pdf_file.read_tables(folder / f"{stem}.pdf", TITLES)),
    }


def differences(expected: Totals, found: Mapping[str, Totals]) -> Iterable[str]:
    """A sentence for each file that does not add up to its data set."""
    for kind, totals in found.items():
        if totals != expected:
            yield f"the {kind} file adds up to {totals.model_dump()}, its data set to {expected.model_dump()}"


def main() -> int:
    """Render what is on standard input; the exit code says whether the files may be kept."""
    signal.alarm(LAST_RESORT_SECONDS)
    folder, stem = Path(sys.argv[1]), sys.argv[2]
    data = OperationsData.model_validate_json(sys.stdin.buffer.read())
    render(data, folder, stem)
    wrong = list(differences(data.totals, read_back(folder, stem)))
    sys.stderr.write("; ".join(wrong))
    return UNEQUAL if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
