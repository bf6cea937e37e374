"""What people do with workflows on the command line, by way of the gateway: decide what they ask, and fork them."""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import orjson

from carillon.cli.exits import MistypedError
from carillon.cli.gateway import Gateway, RefusedError
from carillon.cli.steer import asked, say
from carillon.cli.tables import print_table
from carillon.cli.typed import run_id

COLUMNS = ("workflow_id", "seq", "task", "kind", "question", "asked_at", "due_at")
#: In one answer of the gateway.
MOST_LISTED = 200
DECIDED = ("approval", "repair")


def show_open(limit: int, *, as_json: bool) -> int:
    """Show what workflows wait for people to decide."""

    async def show(gateway: Gateway) -> None:
        rows = await _open(gateway, limit)
        if as_json:
            sys.stdout.writelines(f"{orjson.dumps(row).decode()}\n" for row in rows)
        else:
            print_table(COLUMNS, ([row[name] for name in COLUMNS] for row in rows), "Nobody has to decide anything.")

    return asked(show)


async def _open(gateway: Gateway, limit: int) -> list[Any]:
    rows: list[Any] = []
    query: dict[str, object] = {}
    while len(rows) < limit:
        page = await gateway.get("approvals", {**query, "limit": min(limit - len(rows), MOST_LISTED)})
        rows += page["approvals"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    return rows


def decide(workflow: str, step: int | None, reason: str | None, *, approve: bool) -> int:
    """Approve or refuse what a workflow asks; where it asks one thing only, that."""

    async def do(gateway: Gateway) -> None:
        run = run_id(workflow)
        seq = await _asked_by(gateway, run) if step is None else step
        body = {"approve": approve, "reason": reason}
        await gateway.post(f"workflows/{run}/steps/{seq}/decision", body)
        say(f"Step {seq} of {run} is {'approved' if approve else 'refused'}; the workflow goes on.")

    return asked(do)


def fork(workflow: str, step: int | None, reason: str | None) -> int:
    """Run a workflow that has ended again from a step on."""

    async def do(gateway: Gateway) -> None:
        answer = await gateway.post(f"workflows/{run_id(workflow)}/fork", {"step": step, "reason": reason})
        there = "" if answer["created"] else ", which was there already"
        say(f"{workflow} goes on from a step of it as {answer['run_id']}{there}.")

    return asked(do)


async def _asked_by(gateway: Gateway, run: UUID) -> int:
    """The one step that a workflow waits for somebody to decide about."""
    boxes = (await gateway.get(f"workflows/{run}/graph"))["boxes"]
    steps = [box["step"] for box in boxes if box["kind"] in DECIDED and box["step"] is not None]
    found = [step["seq"] for step in steps if step["state"] == "waiting"]
    if not found:
        message = f"The workflow {run} asks nothing; `carillon workflows show {run}` tells what it waits for."
        raise RefusedError(message)
    if len(found) > 1:
        message = f"The workflow {run} asks several things; name one with --step: {', '.join(map(str, found))}."
        raise MistypedError(message)
    return int(found[0])
