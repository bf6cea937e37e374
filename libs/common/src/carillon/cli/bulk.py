"""`carillon bulk`: shows which runs the filters choose, asks, and then acts upon exactly these."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress

from carillon.cli.exits import FAILED, OK, MistypedError, complain, in_one_sentence
from carillon.cli.gateway import Gateway
from carillon.cli.settings import CommandSettings
from carillon.cli.tables import print_table
from carillon.errors import PlatformUnavailableError

#: What is said of each act, before and afterwards.
WORDS = {
    "cancel": ("cancelled", "They end at once where they wait; what executes is asked to end."),
    "replay": ("run again", "One goes ahead; the others start when it has completed."),
    "settle": ("settled", "They leave the dead letters and stay in the history."),
    "delete": ("deleted for good", "Only what has ended is, with its results; copies in Redis go when they expire."),
}
#: A platform that is away is asked again after this time, and for this long.
AWAY_SECONDS, PATIENCE_SECONDS = 1.0, 60.0
SHOWN = ("id", "task", "state", "created_at", "error")
#: Filters that may be given several times.
REPEATED = frozenset({"state", "label", "arg"})
#: Filters that are numbers.
NUMBERS = frozenset({"longer", "shorter"})


def run(action: str, filters: Sequence[str], wishes: Mapping[str, Any], *, yes: bool) -> int:
    """Act upon the runs that fit; 1 when it was declined."""
    return in_one_sentence(lambda: _run(action, filters, wishes, yes=yes))


def _run(action: str, filters: Sequence[str], wishes: Mapping[str, Any], *, yes: bool) -> int:
    if action not in WORDS:
        message = f"There is no act {action!r}; there are {', '.join(WORDS)}."
        raise MistypedError(message)
    gateway, body = Gateway(CommandSettings()), {"action": action, "filters": filters_in(filters)}
    preview = asyncio.run(gateway.post("selections", body))
    done, more = WORDS[action]
    if not preview["count"]:
        sys.stdout.write("No run fits.\n")
        return OK
    sys.stdout.write(f"{preview['count']:,} runs would be {done}, among them:\n")
    print_table(SHOWN, ([run[name] for name in SHOWN] for run in preview["sample"]), "")
    sys.stdout.write(f"{more}\n")
    if not yes and not _agreed(preview["count"], done):
        complain("Nothing was done.")
        return FAILED
    begun = {"selection": preview["token"], "count": preview["count"], "done": 0, "remaining": preview["count"]}
    told = asyncio.run(act(gateway, begun, wishes))
    rest = f"; {told['skipped']:,} needed nothing any more" if told["skipped"] else ""
    sys.stdout.write(f"{changed(told):,} {done}{rest}.\n")
    return OK


def _agreed(count: int, done: str) -> bool:
    """Whether whoever sits there agrees; where nobody does, they do not."""
    if not sys.stdin.isatty():
        complain(f"Nobody is there to agree that {count:,} runs are {done}; say --yes.")
        return False
    return typer.confirm(f"{count:,} runs will be {done}. Go on?")


async def act(gateway: Gateway, begun: Mapping[str, Any], wishes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Act upon the rest of a selection, with a bar where there is a terminal; returns how it stands afterwards."""
    done, heard = begun, time.monotonic()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("acting", total=begun["count"], completed=begun["done"])
        while done["remaining"]:
            try:
                done, heard = await gateway.post(f"selections/{begun['selection']}/act", wishes), time.monotonic()
            except PlatformUnavailableError:
                # What was done is done; asked again, it goes on where it stopped.
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(AWAY_SECONDS)
            progress.update(bar, completed=done["done"])
    return done


def changed(told: Mapping[str, Any]) -> int:
    """To how many runs something was done."""
    total: int = told["done"] - told["skipped"]
    return total


def filters_in(typed: Sequence[str]) -> dict[str, Any]:
    """Filters that were typed as NAME=VALUE, as the gateway takes them; raises `MistypedError`."""
    found: dict[str, Any] = {}
    for text in typed:
        name, equals, value = text.partition("=")
        if not name or not equals:
            message = f"{text!r} is no filter; write NAME=VALUE, such as task=reports.render_report or state=failed."
            raise MistypedError(message)
        if name in REPEATED:
            found.setdefault(name, []).append(value)
        elif name in found:
            message = f"The filter {name} may be given once."
            raise MistypedError(message)
        else:
            found[name] = _number(name, value) if name in NUMBERS else value
    return found


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        message = f"{name} is a number of seconds, such as 1.5, not {text!r}."
        raise MistypedError(message) from error
