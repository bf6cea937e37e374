"""HTML: one self-contained page with its styles in line, so that mail programs show it as browsers do."""

from __future__ import annotations

import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reports import palette

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from reports.charts import Chart
    from reports.layout import Page

_BREAKS = re.compile(r"(?<=[._/:-])")


def write(page: Page, charts: Mapping[str, Chart], path: Path) -> None:
    """Write the page; every name is escaped by the template engine."""
    # Names are data from anywhere: escaping is on for every template, whatever it is called.
    environment = Environment(
        loader=PackageLoader("reports"), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["breakable"] = breakable
    pictures = {
        key: {"title": chart.title, "text": chart.text, "png_base64": b64encode(chart.png).decode()}
        for key, chart in charts.items()
    }
    html = environment.get_template("operations.html.j2").render(
        page=page,
        charts=pictures,
        ink=palette.INK,
        faint=palette.FAINT,
        rule=palette.RULE,
        head=palette.HEAD,
        paper=palette.PAPER,
        failed=palette.COLOURS["failed"],
    )
    path.write_text(html, encoding="utf-8", newline="\n")


def breakable(name: str) -> Markup:
    """The escaped name, which a line may break after a full stop, dash or underscore."""
    return Markup("<wbr>").join(escape(part) for part in _BREAKS.split(name))


def read_tables(path: Path, keys: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """The rows of each of these tables, by the title of the column; none where the page has no such table."""
    reader = _Tables()
    reader.feed(path.read_text(encoding="utf-8"))
    tables = {key: reader.tables.get(key, [[]]) for key in keys}
    return {key: [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] for key, rows in tables.items()}


class _Tables(HTMLParser):
    """The cells of every data table: its head row, then its body rows; the foot is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] | None = None
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a table, row or cell begins."""
        key = dict(attrs).get("data-table")
        if tag == "table":
            self._rows = None if key is None else self.tables.setdefault(key, [])
        elif tag == "tfoot":
            self._rows = None
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in {"td", "th"} and self._rows is not None:
            self._rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        """Note where a cell ends."""
        if tag in {"td", "th"}:
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        """Take the text of a cell."""
        if self._in_cell and self._rows is not None:
            self._rows[-1][-1] += data
