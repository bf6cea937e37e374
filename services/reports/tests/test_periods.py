"""Reports over a period: what may be asked for, what is counted, and the files, read back."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import date, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import obstore
import pytest
from pypdf import PdfReader
from python_calamine import CalamineWorkbook

from reports.collecting import collect_period, days_in
from reports.days import DayBook, RememberedDays
from reports.errors import DamagedDatasetError, InvalidRequestError, RendererStoppedError, UnequalTotalsError
from reports.files import MEDIA_TYPES
from reports.period_rendering import write
from reports.period_reports import PeriodReports
from reports.periods import Period
from reports.renderer import PeriodRenderer
from reports.requests import requested
from reports.shelf import Shelf
from reports.store import ReportRegister, StoredDays

if TYPE_CHECKING:
    from pathlib import Path

    from obstore.store import MemoryStore
    from tests.conftest import MakeRollups

    from reports.periods import PeriodData

HOSTILE = ("=cmd|'/c calc'!A1", "<script>alert(1)</script>", '#read("/etc/passwd")', "orders." + "reconcile_" * 18)
COLLECTION, REPORT = UUID("0190f3a0-0000-7000-8000-00000000000c"), UUID("0190f3a0-0000-7000-8000-00000000000d")
FORTNIGHT = Period(report_type="operations", start_date=date(2026, 11, 11), end_date=date(2026, 11, 24))
ASKED = {
    "report_type": "operations",
    "start_date": "2026-11-11",
    "end_date": "2026-11-24",
    "output_format": "pdf",
    "recipients": ["ann@example.org"],
}


def collected(rollups: MakeRollups, *, report: str = "operations", **made: object) -> PeriodData:
    period = FORTNIGHT.model_copy(update={"report_type": report})
    return collect_period(period, days_in(rollups(**made)))


@pytest.fixture(params=["remembered", "stored"])
def book(request: pytest.FixtureRequest) -> DayBook:
    return RememberedDays() if request.param == "remembered" else StoredDays(request.getfixturevalue("engine"))


@pytest.fixture
def days(rollups: MakeRollups) -> RememberedDays:
    return RememberedDays(days_in(rollups()))


def made_by(days: RememberedDays, storage: MemoryStore, register: ReportRegister, *program: str) -> PeriodReports:
    command = (sys.executable, "-c", *program) if program else (sys.executable, "-m", "reports.period_rendering")
    return PeriodReports(days, PeriodRenderer(timedelta(seconds=60), command), Shelf(storage), register)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"report_type": "sales"}, "report_type: there is no report 'sales'; there are operations, failures"),
        ({"output_format": "docx"}, "no report is written as 'docx'; there are html, pdf, xlsx, csv, json, excel"),
        ({"end_date": "2026-11-10"}, "period: a period ends on the day it begins or later, and has at most 366 days"),
        ({"end_date": "2027-11-12"}, "2026-11-11 to 2027-11-12 does not"),
        ({"end_date": "2026-02-30"}, "end_date: "),
        ({"recipients": []}, "recipients: "),
        ({"recipients": ["nobody"]}, "recipients: 'nobody' is no address; it has to be one local@domain"),
        ({"recipients": ["a@b\r\nBcc: eve@example.org"]}, "is no address"),
        ({"owner": "ann"}, "owner: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_there_is(changes: dict[str, object], sentence: str):
    with pytest.raises(InvalidRequestError) as refused:
        requested(**ASKED | changes)

    assert sentence in str(refused.value)


def test_excel_is_xlsx_and_a_recipient_who_is_named_twice_is_one():
    spec = requested(**ASKED | {"output_format": "excel", "recipients": ["a@b", "c@d", "a@b"]})

    assert (spec.output_format, spec.recipients) == ("xlsx", ("a@b", "c@d"))


@pytest.mark.parametrize("kind", MEDIA_TYPES)
@pytest.mark.parametrize("rows", [0, 1, 500])
def test_every_format_adds_up_and_the_same_data_gives_the_same_bytes(
    rollups: MakeRollups, tmp_path: Path, kind: str, rows: int
):
    names = [*HOSTILE, *(f"orders.task_{number}" for number in range(rows // 4))]
    data = collected(rollups, names=names, rows=rows)

    wrong = [write(data, kind, tmp_path / name) for name in ("once", "again")]

    assert wrong == ["", ""]
    assert (tmp_path / "once").read_bytes() == (tmp_path / "again").read_bytes()


def test_a_file_that_does_not_add_up_is_noticed(rollups: MakeRollups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = collected(rollups)
    half = data.model_copy(update={"tasks": data.tasks[1:]})
    monkeypatch.setattr("reports.formats.csv_file._task_rows", lambda _: [])

    assert "the csv file adds up to" in write(half, "csv", tmp_path / "r.csv")


def test_days_that_nobody_heard_of_are_left_out_and_the_report_says_so(rollups: MakeRollups, tmp_path: Path):
    heard = [day for day in days_in(rollups()) if day.day not in {date(2026, 11, 13), date(2026, 11, 20)}]
    data = collect_period(FORTNIGHT, heard)

    write(data, "pdf", tmp_path / "r.pdf")

    assert len(data.days) == 12
    said = " ".join(" ".join(page.extract_text() for page in PdfReader(tmp_path / "r.pdf").pages).split())
    assert "Left out, for nothing was heard of them: 2 of 14 days, the first of them 2026-11-13." in said
    assert "Counted before their end: 1 of 12 days, the last of them 2026-11-24." in said


def test_the_failures_report_has_the_tasks_that_failed_and_no_other(rollups: MakeRollups, tmp_path: Path):
    whole, failures = collected(rollups), collected(rollups, report="failures")

    write(failures, "xlsx", tmp_path / "r.xlsx")

    assert {line.name for line in failures.tasks} == {line.name for line in whole.tasks if line.failed}
    assert len(failures.tasks) < len(whole.tasks)
    assert failures.total.failed == whole.total.failed
    listed = CalamineWorkbook.from_path(tmp_path / "r.xlsx").get_sheet_by_name("By task").to_python()
    assert [row[0] for row in listed[1:]] == [line.name for line in failures.tasks]


async def test_the_book_keeps_the_youngest_of_each_day(book: DayBook, rollups: MakeRollups):
    younger = days_in(rollups())
    older = [day.model_copy(update={"as_of": day.as_of - timedelta(hours=1), "rows": ()}) for day in younger]

    for heard in (older[:5], younger, older):
        await book.remember(heard)

    assert list(await book.between(date(2026, 11, 12), date(2026, 11, 13))) == younger[1:3]
    assert list(await book.between(date(2026, 12, 1), date(2026, 12, 2))) == []


async def test_data_that_was_collected_stays_whatever_is_heard_later(
    days: RememberedDays, storage: MemoryStore, register: ReportRegister, rollups: MakeRollups
):
    reports = made_by(days, storage, register)
    first = await reports.collect(COLLECTION, FORTNIGHT)
    later = rollups(rows=5).model_copy(update={"watermark": rollups().watermark + timedelta(hours=1)})
    await days.remember(days_in(later))

    again = await reports.collect(COLLECTION, FORTNIGHT)

    assert again == first
    assert (await reports.collect(REPORT, FORTNIGHT)).numbers != first.numbers


async def test_a_report_is_rendered_once_for_each_run_and_kept(
    days: RememberedDays, storage: MemoryStore, register: ReportRegister
):
    reports = made_by(days, storage, register)
    collected = await reports.collect(COLLECTION, FORTNIGHT)
    ready = await reports.format(REPORT, collected, "json")

    broken = made_by(days, storage, register, "raise SystemExit('no more ink')")
    again = await broken.format(REPORT, collected, "json")

    assert again == ready
    kept = json.loads(bytes(obstore.get(storage, ready.artefact.key).bytes()))
    assert kept["total"]["failed"] == collected.numbers["failed"]
    assert (kept["title"], ready.artefact.filename) == (
        "Operations report, 11 Nov 2026 to 24 Nov 2026",
        "operations-2026-11-11-to-2026-11-24.json",
    )


@pytest.mark.parametrize("harm", ["changed", "gone"])
async def test_data_that_is_not_what_was_collected_is_not_rendered(
    days: RememberedDays, storage: MemoryStore, register: ReportRegister, harm: str
):
    reports = made_by(days, storage, register)
    collected = await reports.collect(COLLECTION, FORTNIGHT)
    key = f"reports/operations/{COLLECTION}/data.json"
    if harm == "gone":
        obstore.delete(storage, key)
    else:
        obstore.put(storage, key, bytes(obstore.get(storage, key).bytes()).replace(b'"failed":', b'"failed": 1'))

    with pytest.raises(DamagedDatasetError, match="ask for the report again"):
        await reports.format(REPORT, collected, "csv")


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import sys; sys.stderr.write('the csv file adds up to 3'); sys.exit(65)", UnequalTotalsError),
        ("import os; os.kill(os.getpid(), 9)", RendererStoppedError),
    ],
)
async def test_a_report_that_could_not_be_checked_is_not_kept(
    days: RememberedDays, storage: MemoryStore, register: ReportRegister, program: str, error: type[Exception]
):
    reports = made_by(days, storage, register, program)
    collected = await reports.collect(COLLECTION, FORTNIGHT)

    with pytest.raises(error):
        await reports.format(REPORT, collected, "csv")

    kept = [entry["path"] for page in obstore.list(storage) for entry in page]
    assert kept == [f"reports/operations/{COLLECTION}/data.json"]
    assert await register.find(REPORT) is None


async def test_the_renderer_of_periods_loads_nothing_of_the_platform_and_draws_nothing():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, reports.period_rendering;"
        "print([name for name in sys.modules if name.partition('.')[0] in ('carillon', 'altair')])",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()

    assert said.decode().strip() == "[]"
