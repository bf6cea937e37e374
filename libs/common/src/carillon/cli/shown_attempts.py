"""The attempts of one run in a terminal: a line for each, then where the newest failed and what they logged."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from carillon.cli.tables import print_table, printable_line
from carillon.ledger.history import Row

COLUMNS = ("attempt", "outcome", "started_at", "seconds", "worker_id")
#: Of so many attempts, the newest, the traceback and the log are told, and so many lines of each, the last ones.
MOST_TOLD = 3
MOST_LINES = 30


def print_attempts(attempts: Sequence[Row]) -> None:
    """Show the ended attempts of a run, first to last; nothing where there is none."""
    if not attempts:
        return
    sys.stdout.write("\nAttempts\n")
    print_table((*COLUMNS, "error"), ([*cells(COLUMNS, a), (a["error"] or {}).get("message")] for a in attempts), "")
    for attempt in attempts[-MOST_TOLD:]:
        _print_text(f"Traceback of attempt {attempt['attempt']}", (attempt["error"] or {}).get("traceback"))
        _print_text(f"Log of attempt {attempt['attempt']}", attempt["log"])
    if any((a["error"] or {}).get("traceback") or a["log"] for a in attempts[:-MOST_TOLD]):
        sys.stdout.write(f"\nTracebacks and logs are those of the last {MOST_TOLD} attempts; --json has them all.\n")


def cells(columns: Sequence[str], row: Row) -> list[object]:
    """What a run or an attempt has in these columns, with how long it took as `seconds`."""
    told = {**row, "seconds": None}
    if row["started_at"] is not None and row["finished_at"] is not None:
        told["seconds"] = f"{(row['finished_at'] - row['started_at']).total_seconds():.2f}"
    return [told[name] for name in columns]


def _print_text(title: str, text: str | None) -> None:
    if not text:
        return
    lines = text.splitlines()
    cut = f", the last {MOST_LINES} of {len(lines)} lines; --json has all" if len(lines) > MOST_LINES else ""
    sys.stdout.write(f"\n{title}{cut}\n")
    sys.stdout.writelines(f"  {printable_line(line)}\n" for line in lines[-MOST_LINES:])
