"""The files themselves, read back with other libraries than those that wrote them."""

from __future__ import annotations

import asyncio
import csv
import sys
from datetime import date, datetime
from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from pypdf import PdfReader
from python_calamine import CalamineWorkbook

from reports.collecting import collect_operations
from reports.formats import csv_file, html_file
from reports.rendering import differences, read_back, render

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeRollups

    from carillon.contracts import RollupsComputed

FORMATS = ("csv", "html", "pdf", "xlsx")
FORMULA, SCRIPT, MARKUP = "=cmd|'/c calc'!A1", "<script>alert(1)</script>", '#read("/etc/passwd")'
LONG = "orders." + "reconcile_" * 18
FOREIGN = "日本語 имя 100 %"


def written(rollups: RollupsComputed, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    render(collect_operations(rollups), folder, "r")
    return folder


@pytest.fixture(scope="module")
def hostile(rollups: MakeRollups, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = (FORMULA, SCRIPT, MARKUP, LONG, FOREIGN, "$x$ *b* @ref `c`")
    return written(rollups(names=names), tmp_path_factory.mktemp("hostile"))


def text_of_pdf(path: Path) -> str:
    pages = "\n".join(page.extract_text() for page in PdfReader(path).pages)
    return pages.replace("\u200b", "")


def test_the_same_data_gives_the_same_bytes(rollups: MakeRollups, tmp_path: Path):
    once, again = written(rollups(), tmp_path / "1"), written(rollups(), tmp_path / "2")

    assert {kind: (once / f"r.{kind}").read_bytes() == (again / f"r.{kind}").read_bytes() for kind in FORMATS} == (
        dict.fromkeys(FORMATS, True)
    )


@pytest.mark.parametrize("rows", [0, 1, 60, 500])
def test_every_format_adds_up_to_the_data_set(rollups: MakeRollups, tmp_path: Path, rows: int):
    names = [f"orders.task_{number}" for number in range(max(rows // 2, 1))]
    data = collect_operations(rollups(names=names, rows=rows))

    render(data, tmp_path, "r")

    assert dict.fromkeys(FORMATS, data.totals) == read_back(tmp_path, "r")


def test_a_hundred_tasks_are_listed_in_the_sheet_and_folded_on_the_page(rollups: MakeRollups, tmp_path: Path):
    rendered = rollups(names=[f"orders.task_{number}" for number in range(100)], rows=500)

    folder = written(rendered, tmp_path)

    tasks = len(collect_operations(rendered).tasks)
    assert len(CalamineWorkbook.from_path(folder / "r.xlsx").get_sheet_by_name("By task").to_python()) == tasks + 1
    assert f"{tasks - 39} other tasks" in text_of_pdf(folder / "r.pdf")
    assert f"{tasks - 39} other tasks" in (folder / "r.html").read_text()


def test_a_file_that_was_changed_after_it_was_written_is_noticed(rollups: MakeRollups, tmp_path: Path):
    data = collect_operations(rollups())
    render(data, tmp_path, "r")
    lines = (tmp_path / "r.csv").read_text().splitlines()
    (tmp_path / "r.csv").write_text("\n".join(lines[:1] + lines[2:]))

    found = list(differences(data.totals, read_back(tmp_path, "r")))

    assert [sentence.split(" file ")[0] for sentence in found] == ["the csv"]


def test_a_hostile_name_is_only_text_in_the_workbook(hostile: Path):
    names = {row[0] for row in CalamineWorkbook.from_path(hostile / "r.xlsx").get_sheet_by_name("By task").to_python()}
    sheets = [ZipFile(hostile / "r.xlsx").read(f"xl/worksheets/sheet{number}.xml") for number in range(1, 6)]

    assert {FORMULA, SCRIPT, MARKUP, LONG, FOREIGN} <= names
    assert not any(b"<f>" in sheet or b"<hyperlink" in sheet for sheet in sheets)


def test_a_hostile_name_is_only_text_on_the_page(hostile: Path):
    html = (hostile / "r.html").read_text()

    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/" in html
    assert "=cmd|&#39;/" in html


def test_a_hostile_name_is_only_text_in_the_document(hostile: Path):
    text = text_of_pdf(hostile / "r.pdf")

    assert all(name in text for name in (FORMULA, SCRIPT, MARKUP, "$x$ *b* @ref `c`"))
    assert LONG in text.replace("\n", "")
    assert "root:" not in text


def test_a_formula_in_the_csv_file_is_guarded_and_can_be_had_back(hostile: Path):
    with (hostile / "r.csv").open(newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}

    assert FORMULA not in names
    assert FORMULA in {csv_file.unguarded(name) for name in names}
    assert {SCRIPT, MARKUP, LONG, FOREIGN} <= names


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "'quoted", "\uff1d1", "plain", ""])
def test_guarding_a_name_can_be_undone(text: str):
    assert csv_file.unguarded(csv_file.guarded(text)) == text


def test_the_page_loads_nothing_and_runs_nothing(hostile: Path):
    html = (hostile / "r.html").read_text()

    assert not [word for word in ("http:", "https:", "<link", "<script", "<style", "url(", "onload") if word in html]
    assert html.count('<img src="data:image/png;base64,') == 2


def test_a_name_on_the_page_may_break_without_changing():
    assert html_file.breakable("a.b_c<d") == "a.<wbr>b_<wbr>c&lt;d"


def test_the_workbook_is_typed_and_has_frozen_headers_and_charts(hostile: Path):
    book = CalamineWorkbook.from_path(hostile / "r.xlsx")
    hour, runs = book.get_sheet_by_name("By hour").to_python()[1][:2]
    day = book.get_sheet_by_name("By day").to_python()[1][0]
    archive = ZipFile(hostile / "r.xlsx")

    assert isinstance(hour, datetime)
    assert isinstance(day, date)
    assert isinstance(runs, int | float)
    assert [name for name in archive.namelist() if "charts/chart" in name] == [
        "xl/charts/chart1.xml",
        "xl/charts/chart2.xml",
    ]
    assert b'state="frozen"' in archive.read("xl/worksheets/sheet2.xml")


def test_the_document_is_tagged_titled_and_carries_its_fonts(rollups: MakeRollups, tmp_path: Path):
    reader = PdfReader(BytesIO((written(rollups(), tmp_path) / "r.pdf").read_bytes()))

    assert reader.metadata is not None
    assert reader.metadata.title == "Operations report, 24 Nov 2026"
    assert reader.root_object["/MarkInfo"]["/Marked"]
    assert b"pdfuaid" in reader.root_object["/Metadata"].get_object().get_data()


def test_a_report_of_nothing_says_what_to_do(rollups: MakeRollups, tmp_path: Path):
    folder = written(rollups(rows=0), tmp_path)

    assert "carillon tour" in (folder / "r.html").read_text()
    assert "carillon tour" in text_of_pdf(folder / "r.pdf")
    summary = CalamineWorkbook.from_path(folder / "r.xlsx").get_sheet_by_name("Summary").to_python()
    assert any("carillon tour" in str(cell) for row in summary for cell in row)


async def test_the_renderer_loads_nothing_of_the_platform():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, reports.rendering; print([name for name in sys.modules if name.startswith('carillon')])",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()

    assert said.decode().strip() == "[]"
