"""What a command shows: rows below their columns, and nothing that a terminal would obey."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Where there is no terminal, wide enough for every line.
PLAIN_WIDTH = 200


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Rows below their columns; `nothing` where there is no row."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row))
    console.print(table if table.row_count else nothing)


def printable(value: object) -> str:
    """The value on one line, and nothing that a terminal would obey."""
    if isinstance(value, datetime):
        value = f"{value:%F %T}"
    return printable_line("" if value is None else " ".join(str(value).split()))


def printable_line(line: str) -> str:
    """One line as it is indented, and nothing that a terminal would obey."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line.expandtabs())
