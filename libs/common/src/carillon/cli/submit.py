"""`carillon submit`: one run of a task, and perhaps its end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from carillon.cli.exits import FAILED, OK, MistypedError, complain, in_one_sentence
from carillon.cli.gateway import Gateway, step
from carillon.cli.settings import CommandSettings
from carillon.cli.tables import printable
from carillon.cli.typed import json_object
from carillon.errors import PlatformUnavailableError

#: Between two looks at a run; a gateway that is away meanwhile is asked again.
LOOK_SECONDS = 0.25
GOOD = frozenset({"completed", "partial"})
ENDED = GOOD | {"failed", "cancelled"}


def run(task: str, args: str, options: Mapping[str, Any], *, wait: float | None) -> int:
    """Submit, and with `wait` (seconds) stay until it has ended: 0 when it completed, 1 when it did not."""
    return in_one_sentence(lambda: asyncio.run(_submit(task, json_object(args, "The arguments"), options, wait)))


async def _submit(task: str, args: Mapping[str, Any], options: Mapping[str, Any], wait: float | None) -> int:
    gateway = Gateway(CommandSettings())
    if "." in task:
        accepted = await gateway.post("tasks", {"task": task, "args": args, **options})
    else:
        accepted = await gateway.post(f"tasks/{step(task)}/kick", {"data": args, **options})
    if wait is None:
        sys.stdout.write(f"{accepted['id']}\n")
        if not accepted["created"]:
            complain("This run was there already: its key is taken.")
        return OK
    return _told(await _end(gateway, accepted["id"], time.monotonic() + wait))


async def _end(gateway: Gateway, run: str, until: float) -> Mapping[str, Any]:
    """All of a run that has ended."""
    while True:
        try:
            status = (await gateway.get(f"tasks/{run}/status"))["status"]
        except PlatformUnavailableError as error:
            status = str(error)
        if status in ENDED:
            found: dict[str, Any] = await gateway.get(f"runs/{run}")
            if found["stored_result"] is not None:
                found["result"] = await gateway.get(f"runs/{run}/result")
            return found
        if time.monotonic() > until:
            message = f"{run} has not ended yet ({status}); `carillon runs show {run}` tells more."
            raise PlatformUnavailableError(message)
        await asyncio.sleep(LOOK_SECONDS)


def _told(run: Mapping[str, Any]) -> int:
    if run["status"] in GOOD:
        sys.stdout.write(f"{orjson.dumps(run['result']).decode()}\n")
        return OK
    reason = (run["error"] or {}).get("message") or "it gave no reason"
    complain(f"{run['id']} ended {run['status']}: {printable(reason)}")
    return FAILED


def options_of(
    typed: Mapping[str, Any], after: Mapping[str, Any], unique: Mapping[str, Any], *, by_args: bool = False
) -> dict[str, Any]:
    """What was typed as the options of a submit; raises `MistypedError` for what says nothing alone.

    `by_args` says that the arguments are the unique key.
    """
    found = {name: value for name, value in typed.items() if value is not None}
    if label := found.pop("label", None):
        found["labels"] = labels_in(label)
    if by_args and unique["key"] is not None:
        message = "Give --unique or --unique-args: a key, or the arguments as the key."
        raise MistypedError(message)
    for name, needed, given, is_whole in (("after", "runs", after, False), ("unique", "key", unique, by_args)):
        said = {part: value for part, value in given.items() if value is not None}
        if said and not is_whole and needed not in said:
            word = "after-delay" if name == "after" and "delay" in said else next(iter(said)).replace("_", "-")
            message = f"--{word} says how; what it is about is missing: --{name}."
            raise MistypedError(message)
        if said or is_whole:
            found[name] = said
    return found


def labels_in(typed: Sequence[str]) -> dict[str, str]:
    """Labels that were typed as NAME:VALUE; raises `MistypedError`."""
    pairs = [text.partition(":") for text in typed]
    if any(not name or not colon for name, colon, _ in pairs):
        message = "A label is a name, a colon and a value, such as customer:17."
        raise MistypedError(message)
    return {name: value for name, _, value in pairs}
