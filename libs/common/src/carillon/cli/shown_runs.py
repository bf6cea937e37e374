"""`carillon runs` and `carillon runs show`: what the ledger knows of runs. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, replace
from typing import Any
from uuid import UUID

import orjson
from rich.console import Console

from carillon.callbacks import origin_of
from carillon.cli.asking import asking
from carillon.cli.exits import FAILED, OK, complain, in_one_sentence
from carillon.cli.shown_attempts import cells, print_attempts
from carillon.cli.tables import PLAIN_WIDTH, print_table, printable
from carillon.cli.typed import run_id
from carillon.ledger.history import History, Row
from carillon.ledger.records import Priority, State
from carillon.ledger.search import Search
from carillon.ledger.typed import typed_search
from carillon.stored_results import stored_in

LEDGER = "ledger"
COLUMNS = ("id", "task", "state", "attempt", "created_at", "seconds", "labels", "error")
#: What is told of a run line by line; the rest is in the JSON.
DETAILS = (
    "id", "task", "state", "priority", "labels", "actor", "created_at", "run_at", "started_at", "finished_at",
    "worker_id", "beat_at", "parent_id", "replay_of", "unique_key", "idempotency_key", "deadline_at",
)  # fmt: skip
#: When a run that waits for others goes on.
WHEN: Mapping[str, str] = {
    "succeeded": "all of them completed", "ended": "all of them ended, however", "any": "one of them completed",
}  # fmt: skip
OTHERWISE: Mapping[str, str] = {"cancel": "else is cancelled", "run": "else when all of them ended"}


def find(words: Mapping[str, Any], *, limit: int, as_json: bool) -> int:
    """Show the newest runs that fit the filters, by the words of `carillon.ledger.typed`."""
    return in_one_sentence(lambda: asyncio.run(_find(_search(words, limit), as_json=as_json)))


def show_one(run: str, *, as_json: bool) -> int:
    """Show all that is known of one run; 1 when nobody knows it."""
    return in_one_sentence(lambda: asyncio.run(_show_one(run_id(run), as_json=as_json)))


async def _find(search: Search, *, as_json: bool) -> int:
    async with asking(LEDGER) as engine:
        rows = await History(engine).search(search)
    if as_json:
        sys.stdout.writelines(f"{_json(row)}\n" for row in rows)
    else:
        print_table(COLUMNS, (_line(row) for row in rows), "No run.")
    return OK


async def _show_one(run: UUID, *, as_json: bool) -> int:
    async with asking(LEDGER) as engine:
        history = History(engine)
        row = await history.run(run)
        attempts = [] if row is None else await history.attempts(run)
        changes = await history.changes(run)
        limit = await history.awaited_limit(run)
        needs = await history.needs_of(run)
        heard = None if row is None or row["state"] != State.RUNNING else await history.heard_of(row["worker_id"])
    if row is None:
        complain("No run has this id; it was deleted, or ended longer ago than runs are kept.")
        return FAILED
    row = _without_address(row) | {"worker_heard_at": heard, "awaited_limit": limit}
    if as_json:
        told = {**row, "attempts": attempts, "history": [asdict(change) for change in changes], "needs": needs}
        sys.stdout.write(f"{_json(told)}\n")
    else:
        _print_details(row)
        _print_needs(row["after"], needs)
        print_attempts(attempts)
        sys.stdout.write("\nHistory\n")
        print_table(("at", "state", "by", "what"), (astuple(change) for change in changes), "")
    return OK


def _without_address(row: Row) -> dict[str, Any]:
    """A run of whose callback only the origin is left: the rest of the address may be a secret."""
    url = row["callback_url"]
    told = {name: value for name, value in row.items() if name != "callback_url"}
    return told | {"callback_origin": None if url is None else origin_of(url)}


def _print_details(row: Row) -> None:
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    shown = {name: row[name] for name in DETAILS if row[name] not in (None, {})}
    shown["priority"] = Priority(row["priority"]).name.lower()
    shown |= {
        "worker heard at": row["worker_heard_at"],
        "calls back": row["callback_origin"],
        "waits for": row["awaited_limit"],
        "arguments": _json(row["args"]),
        "result": _result(row),
        "progress": _progress(row["progress"]),
        "partial result": _json(row["progress"]["partial"]) if "partial" in (row["progress"] or {}) else None,
    }
    if row["error"] is not None:
        shown["error"] = f"{row['error'].get('type')}: {row['error'].get('message')}"
    for name, value in shown.items():
        if value not in (None, "null"):
            console.print(f"{name:<16} {printable(value)}", soft_wrap=True)


def _print_needs(after: Mapping[str, Any] | None, needs: Sequence[Row]) -> None:
    if after is None:
        return
    later = f", {after['delay_seconds']:g} s later" if after["delay_seconds"] else ""
    sys.stdout.write(f"\nAfter others: goes on when {WHEN[after['when']]}{later}, {OTHERWISE[after['otherwise']]}\n")
    columns = ("id", "task", "state", "outcome")
    print_table(columns, ([need[name] for name in columns] for need in needs), "They are not kept any more.")


def _line(row: Row) -> list[object]:
    labels = " ".join(f"{name}:{value}" for name, value in row["labels"].items())
    return [*cells(COLUMNS[:-2], row), labels, (row["error"] or "")[:120]]


def _result(row: Row) -> str:
    stored = stored_in(row["id"], row["result"])
    return _json(row["result"]) if stored is None else f"{stored.bytes} bytes, in storage at {stored.key}"


def _progress(kept: Mapping[str, Any] | None) -> str | None:
    if kept is None:
        return None
    percent = None if kept.get("fraction") is None else f"{kept['fraction']:.0%}"
    left = None if kept.get("eta_seconds") is None else f"({kept['eta_seconds']:.0f} s left at {kept['at']})"
    return " ".join(str(part) for part in (percent, kept.get("stage"), kept.get("message"), left) if part)


def _search(words: Mapping[str, Any], limit: int) -> Search:
    return replace(typed_search(words), limit=limit)


def _json(value: object) -> str:
    # The names of columns are a kind of text of SQLAlchemy's.
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
