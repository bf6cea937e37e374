"""What operators do to runs, queues and dead letters, each as one request to the gateway and one line about it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import orjson

from carillon.cli.bulk import act, changed
from carillon.cli.exits import OK, MistypedError, in_one_sentence
from carillon.cli.gateway import Gateway, step
from carillon.cli.settings import CommandSettings
from carillon.cli.tables import print_table, printable
from carillon.cli.typed import json_object, run_id

GROUP = ("fingerprint", "what", "count", "last_at", "error")
#: Of an error, in a table.
MOST_ERROR = 100
#: Members of a group in one answer of the gateway.
MOST_LISTED = 100


def steer_run(word: str, run: str, reason: str | None) -> int:
    """Cancel, pause, resume or settle a run."""
    return asked(lambda gateway: _steer_run(gateway, word, run, reason))


async def _steer_run(gateway: Gateway, word: str, run: str, reason: str | None) -> None:
    answer = await gateway.post(f"runs/{run_id(run)}/{word}", {"reason": reason})
    if word == "cancel" and answer["asked"]:
        say(f"{answer['cancelled']} ended; {answer['asked']} still execute and were asked to end.")
    elif word == "cancel":
        say(f"{run} is {answer['state']}; {answer['cancelled']} ended with this.")
    else:
        say(f"{run} is {'settled' if word == 'settle' else answer['state']}.")


def replay_run(run: str, args: str | None, reason: str | None) -> int:
    """Run what failed again, perhaps with other arguments."""

    async def replay(gateway: Gateway) -> None:
        body = {"args": None if args is None else json_object(args, "--args"), "reason": reason}
        answer = await gateway.post(f"runs/{run_id(run)}/replay", body)
        say(f"{run} runs again as {answer['run_id']}{'' if answer['created'] else ', which was there already'}.")

    return asked(replay)


def steer_queue(word: str, name: str, reason: str | None) -> int:
    """Pause or resume a domain or a task."""

    async def steer(gateway: Gateway) -> None:
        kind = "tasks" if "." in name else "domains"
        answer = await gateway.post(f"{kind}/{step(name)}/{word}", {"reason": reason})
        state = "is paused: nothing of it starts" if answer["paused"] else "goes on"
        say(f"{name} {state}{'' if answer['changed'] else ', as before'}.")

    return asked(steer)


def show_holds() -> int:
    """Show what is paused."""

    async def show(gateway: Gateway) -> None:
        names = ("name", "since", "actor", "reason")
        found = (await gateway.get("holds"))["holds"]
        print_table(names, ([hold[name] for name in names] for hold in found), "Nothing is paused.")

    return asked(show)


def show_groups(domain: str | None, limit: int) -> int:
    """Show the groups of dead letters."""

    async def show(gateway: Gateway) -> None:
        query = {"limit": limit} | ({} if domain is None else {"domain": domain})
        found = await gateway.get("dead-letters", query)
        rows = [_group(group, group["task"]) for group in found["runs"]]
        rows += [_group(group, f"messages in {group['queue']}") for group in found["messages"]]
        print_table(GROUP, rows, "No dead letter.")
        if found["more"]:
            say(f"There are more groups than {limit}; see others with --limit or --domain.")

    return asked(show)


def _group(group: Mapping[str, Any], what: str) -> tuple[object, ...]:
    kind = f"{group['type']}: " if group.get("type") else ""
    return group["fingerprint"], what, group["count"], group["last_at"], f"{kind}{group['error']}"[:MOST_ERROR]


def show_group(fingerprint: str, task: str | None, limit: int) -> int:
    """Show the runs or messages of a group."""

    async def show(gateway: Gateway) -> None:
        rows = await _members(gateway, fingerprint, task, limit)
        print_table(("id", "task or queue", "at", "arguments or body"), rows, "Nothing.")

    return asked(show)


async def _members(gateway: Gateway, fingerprint: str, task: str | None, limit: int) -> list[tuple[object, ...]]:
    """The newest members of a group, as rows of a table."""
    query: dict[str, object] = {} if task is None else {"task": task}
    rows: list[tuple[object, ...]] = []
    while len(rows) < limit:
        query["limit"] = min(limit - len(rows), MOST_LISTED)
        found = await gateway.get(f"dead-letters/{step(fingerprint)}", query)
        rows += [(run["id"], run["task"], run["finished_at"], _json(run["args"])) for run in found["runs"]]
        rows += [(m["id"], m["queue"], m["received_at"], m["text"] or m["base64"]) for m in found["messages"]]
        if found["next_cursor"] is None:
            break
        query["cursor"] = found["next_cursor"]
    return rows


def replay_group(fingerprint: str, task: str | None, rate: float, *, canary: bool, reason: str | None) -> int:
    """Run the failed runs of a group again, at a rate, after one that goes ahead."""

    async def replay(gateway: Gateway) -> None:
        wishes = {"rate": rate, "canary": canary, "reason": reason}
        begun = await gateway.post(f"dead-letters/{step(fingerprint)}/replay", {**wishes, "task": task})
        done = changed(await act(gateway, begun, wishes))
        ahead = begun["canary"]
        say(f"{done} run again{f' when {ahead}, which goes ahead, has completed' if ahead else ''}.")

    return asked(replay)


def discard_group(fingerprint: str, task: str | None, reason: str | None) -> int:
    """Settle the runs of a group, or throw its messages away."""

    async def discard(gateway: Gateway) -> None:
        count, remaining = 0, 1
        while remaining:
            answer = await gateway.post(f"dead-letters/{step(fingerprint)}/discard", {"task": task, "reason": reason})
            count, remaining = count + answer["count"], answer["remaining"]
        say(f"{count} discarded.")

    return asked(discard)


def redeliver(what: str, body: str | None, limit: int | None, reason: str | None) -> int:
    """Hand a message to its queue again, perhaps mended, or the messages of a group."""

    async def deliver(gateway: Gateway) -> None:
        if not _is_id(what):
            await _redeliver_group(gateway, what, body, limit, reason)
            return
        wishes = {"body": body, "reason": reason}
        answer = await gateway.post(f"dead-letters/messages/{step(what)}/redeliver", wishes)
        say(f"{what} is in {answer['queue']} again.")

    return asked(deliver)


async def _redeliver_group(
    gateway: Gateway, fingerprint: str, body: str | None, limit: int | None, reason: str | None
) -> None:
    if body is not None:
        message = f"--body mends one message; `carillon dead-letters show {fingerprint}` lists their ids."
        raise MistypedError(message)
    count, more, until = 0, True, None
    while more:
        wishes = {"limit": None if limit is None else limit - count, "until": until, "reason": reason}
        answer = await gateway.post(f"dead-letters/{step(fingerprint)}/redeliver", wishes)
        count, until = count + answer["count"], answer["until"]
        more = answer["count"] and answer["remaining"] and count != limit
    cut = f" {answer['cut']} were cut when they were kept, and need a --body each." if answer["cut"] else ""
    say(f"{count} redelivered, {answer['remaining']} left; what cannot be read now comes back.{cut}")


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def asked(do: Callable[[Gateway], Awaitable[None]]) -> int:
    """Do it with the gateway that the settings name; the exit code."""

    async def run() -> int:
        await do(Gateway(CommandSettings()))
        return OK

    return in_one_sentence(lambda: asyncio.run(run()))


def say(sentence: str) -> None:
    """Print one line, and nothing that a terminal would obey."""
    sys.stdout.write(f"{printable(sentence)}\n")


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
