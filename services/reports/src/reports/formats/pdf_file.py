"""PDF: typeset by typst from data alone, tagged for screen readers, with fonts that come with it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING

import typst
from pypdf import PdfReader

from reports import palette
from reports.layout import COLUMNS
from reports.wording import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from reports.charts import Chart
    from reports.layout import Page

_COLUMN = re.compile("|".join(COLUMNS))
_COLOURS = {
    "ink": palette.INK,
    "faint": palette.FAINT,
    "rule": palette.RULE,
    "head": palette.HEAD,
    "paper": palette.PAPER,
    "failed": palette.COLOURS["failed"],
}


def write(page: Page, as_of: datetime, charts: Mapping[str, Chart], path: Path) -> None:
    """Typeset the report. The compiler is rooted in the file's own folder and sees no font of the machine."""
    pictures = {key: {"title": chart.title, "text": chart.text, "svg": chart.svg} for key, chart in charts.items()}
    template = files("reports").joinpath("templates/operations.typ").read_bytes()
    moment = {field: getattr(as_of, field) for field in ("year", "month", "day", "hour", "minute", "second")}
    compiler = typst.Compiler(
        root=str(path.parent),
        ignore_system_fonts=True,
        sys_inputs={
            "page": page.model_dump_json(),
            "colours": json.dumps(_COLOURS),
            "as_of": json.dumps(moment),
            "charts": json.dumps(pictures),
        },
    )
    path.write_bytes(_compiled(compiler, template, as_of.replace(microsecond=0)))


def read_tables(path: Path, titles: Mapping[str, str]) -> dict[str, list[Mapping[str, str]]]:
    """The rows of the tables with these titles, as they stand on the pages, by the title of the column."""
    lines = [line for page in PdfReader(path).pages for line in page.extract_text().splitlines()]
    return {key: list(_rows(lines, title, frozenset(titles.values()))) for key, title in titles.items()}


def _compiled(compiler: typst.Compiler, template: bytes, moment: datetime) -> bytes:
    """PDF/UA, the standard for accessible documents, forbids signs without a glyph: then tagged, but not called UA."""
    try:
        written = compiler.compile(template, format="pdf", timestamp=moment, pdf_standards="ua-1")
    except typst.TypstError:
        written = compiler.compile(template, format="pdf", timestamp=moment)
    if not isinstance(written, bytes):
        message = (
            f"typst gave {type(written).__name__} where one PDF was asked for; pin the version of typst that worked"
        )
        raise TypeError(message)
    return written


def _rows(lines: Sequence[str], title: str, titles: frozenset[str]) -> Iterable[Mapping[str, str]]:
    """The figures below a title by column; the names are not needed to add up, and the total line is left out."""
    if title not in lines:
        return
    below = lines[lines.index(title) + 1 :]
    section = list(takewhile(lambda line: line not in titles, below))
    columns = _COLUMN.findall(section[0]) if section else []
    figures = re.compile(r"(?:^|\s)" + r"\s".join([rf"([\d,.]+|{NOTHING})"] * len(columns)) + r"$")
    matches = [match.groups() for line in section[1:] if columns and (match := figures.search(line))]
    yield from (dict(zip(columns, match, strict=True)) for match in matches[:-1])
