"""`carillon workflows list` and `show`: workflows in a terminal. It asks PostgreSQL itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any
from uuid import UUID

import orjson
from rich.console import Console
from rich.text import Text

from carillon.cli.asking import asking
from carillon.cli.exits import FAILED, OK, complain, in_one_sentence
from carillon.cli.shown_attempts import cells
from carillon.cli.shown_runs import LEDGER
from carillon.cli.tables import PLAIN_WIDTH, print_table, printable
from carillon.cli.typed import run_id
from carillon.ledger.history import Box, History, SeenWorkflow
from carillon.ledger.search import Search
from carillon.ledger.steps import DECIDED, SeenStep
from carillon.ledger.typed import typed_search

COLUMNS = ("id", "task", "state", "created_at", "finished_at", "error")
STYLES: Mapping[str, str] = {
    "completed": "green", "partial": "yellow", "failed": "bold red", "running": "blue", "retrying": "yellow",
    "waiting": "yellow", "paused": "yellow", "expired": "yellow", "cancelled": "dim", "forgotten": "dim",
}  # fmt: skip
#: Of an error, and of what is asked.
MOST_TEXT = 200


def find(words: Mapping[str, Any], *, limit: int, as_json: bool) -> int:
    """Show the newest workflows that fit the filters."""
    return in_one_sentence(lambda: asyncio.run(_find(replace(typed_search(words), limit=limit), as_json=as_json)))


def show_one(workflow: str, *, as_json: bool) -> int:
    """Draw one workflow; 1 where the run is none."""
    return in_one_sentence(lambda: asyncio.run(_show_one(run_id(workflow), as_json=as_json)))


async def _find(search: Search, *, as_json: bool) -> int:
    async with asking(LEDGER) as engine:
        rows = await History(engine).workflows(search)
    if as_json:
        sys.stdout.writelines(f"{_json(dict(row))}\n" for row in rows)
    else:
        told = [[*cells(COLUMNS[:-1], row), (row["error"] or "")[:MOST_TEXT]] for row in rows]
        print_table(COLUMNS, told, "No workflow.")
    return OK


async def _show_one(run: UUID, *, as_json: bool) -> int:
    async with asking(LEDGER) as engine:
        history = History(engine)
        seen = await history.workflow(run)
        boxes = [] if seen is None or as_json else await history.graph(run)
        steps = [asdict(step) async for step in _every(history, seen)] if seen is not None and as_json else []
    if seen is None:
        complain("No workflow has this id: it was deleted, ended longer ago than runs are kept, or is another run.")
        return FAILED
    if as_json:
        row = {name: seen.run[name] for name in ("id", "task", "state", "created_at", "finished_at", "error", "origin")}
        sys.stdout.write(
            f"{_json({**row, 'waits_for': seen.waits_for, 'counts': dict(seen.counts), 'steps': steps})}\n"
        )
    else:
        _draw(seen, boxes)
    return OK


async def _every(history: History, seen: SeenWorkflow | None) -> Any:
    """The steps of all pages, from the first one on."""
    while seen is not None:
        for step in seen.steps:
            yield step
        seen = await history.workflow(seen.run["id"], after=seen.steps[-1].seq) if seen.more else None


def _draw(seen: SeenWorkflow, boxes: Sequence[Box]) -> None:
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for line in _lines(seen, boxes, is_plain=console.options.ascii_only):
        console.print(line, overflow="fold")


def _lines(seen: SeenWorkflow, boxes: Sequence[Box], *, is_plain: bool) -> Iterator[Text]:
    run = seen.run
    yield Text.assemble(printable(run["task"]), " ", _state(run["state"]), " ", (str(run["id"]), "dim"))
    if seen.waits_for is not None:
        yield Text(f"{printable(seen.waits_for)}.")
    if run["error"] is not None:
        yield Text(printable(f"{run['error'].get('type')}: {run['error'].get('message')}")[:MOST_TEXT], "red")
    yield from (Text(f"From step {one['step']} on it went on in changed code.", "yellow") for one in seen.code_changes)
    if not boxes:
        yield Text("It has asked for no step yet.")
        return
    yield Text(_counts(seen.counts))
    bar, branch = ("|", "+") if is_plain else ("│", "├")
    before: list[int] = []
    for _, together in groupby(sorted(boxes, key=lambda box: (box.layer, box.first)), lambda box: box.layer):
        layer = list(together)
        yield Text(bar, "dim")
        for box in layer:
            yield from _box(box, branch, bar, before)
        before = [box.first for box in layer]


def _box(box: Box, branch: str, bar: str, before: Sequence[int]) -> Iterator[Text]:
    """One box in one line, and what else is to be told of it below."""
    place = str(box.first) if box.first == box.last else f"{box.first}-{box.last}"
    kind = "" if box.kind == "task" else f" {box.kind}"
    how = Text(f"x {sum(box.counts.values()):,}", "bold") if box.step is None else _state(_word(box.step))
    # What came after all that is right above it need not say so.
    after = f"after {', '.join(map(str, box.after))}" if list(box.after) != list(before) and box.after else ""
    name = "" if box.name == box.kind else printable(box.name)[:MOST_TEXT]
    yield Text.assemble((f"{branch} ", "dim"), f"{place}{kind} ", how, f" {name}")
    notes = [_counts(box.counts)] if box.step is None else list(_notes(box.step))
    if told := "; ".join(note for note in (*notes, after) if note):
        yield Text.assemble((f"{bar}   ", "dim"), (told, "dim"))


def _word(step: SeenStep) -> str:
    """The state of a step; of what was decided, how."""
    if step.kind not in DECIDED or step.state != "completed" or step.result is None:
        return step.state
    words = ("approved", "refused") if step.kind == "approval" else ("tried again", "done by hand")
    return words[0] if step.result["approved"] else words[1]


def _notes(step: SeenStep) -> Iterator[str]:
    if step.seconds is not None:
        yield f"{step.seconds:.2f} s"
    if (step.attempts or 0) > 1:
        yield f"{step.attempts} attempts"
    if step.waits_for is not None:
        yield printable(step.waits_for)
    if step.error is not None:
        yield printable(f"{step.error['type']}: {step.error['message']}")[:MOST_TEXT]
    if step.kind in DECIDED and step.result is not None:
        yield printable(f"by {step.result['by']}{': ' + step.result['reason'] if step.result['reason'] else ''}")
    if step.run_id is not None:
        yield f"run {step.run_id}"


def _state(name: str) -> Text:
    return Text(name, STYLES.get(name, ""))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in sorted(counts.items()))


def _json(value: object) -> str:
    # The names of columns are a kind of text of SQLAlchemy's.
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
