"""`python -m chaos`: plays the fault matrix on servers of its own, a line for each scenario, and writes the table."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from chaos import report
from chaos.controls import CONTROLS
from chaos.errors import ChaosError
from chaos.matrix import Row, Turn, played, turns
from chaos.profiles import PROFILES, Profile
from chaos.scenarios import ALL
from chaos.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Sequence

TRANSPORTS = ("rabbitmq", "postgres")
INTERRUPTED = 130


def say(text: str) -> None:
    """One line of progress or result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def perform(profile: Profile, plan: Sequence[Turn], rows: list[Row], results: Path) -> None:
    """Play everything, adding to `rows`, so that they are there whatever stops it."""
    seeds = ", ".join(sorted({str(turn.seed) for turn in plan}))
    say(f"profile {profile.name}, {len(plan)} turns, seeds {seeds}; starting servers ...")
    async with Servers(rabbitmq=any(turn.transport == "rabbitmq" for turn in plan)) as servers:

        async def one_after_another(lane: Sequence[tuple[int, Turn]]) -> None:
            for number, turn in lane:
                say(f"[{number}/{len(plan)}] {turn.name} on {turn.transport}, seed {turn.seed}: {turn.title}")
                row = await played(turn, servers, profile, number, results)
                rows.append(row)
                say(report.line(row))

        numbered = list(enumerate(plan, 1))
        if profile.side_by_side:
            lanes = [[n for n in numbered if n[1].transport == name and not n[1].alone] for name in TRANSPORTS]
            await asyncio.gather(*map(one_after_another, lanes))
            numbered = [n for n in numbered if n[1].alone]
        await one_after_another(numbered)


async def bounded(profile: Profile, plan: Sequence[Turn], rows: list[Row], results: Path) -> None:
    """Stop at the limit, and on SIGTERM as on Ctrl-C: no server and no folder is left."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(profile.limit):
        await perform(profile, plan, rows, results)


def parsed() -> argparse.Namespace:
    """The arguments."""
    names = [scenario.name for scenario in ALL] + [control.name for control in CONTROLS] + ["controls"]
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="how large (default: quick)")
    parser.add_argument("--only", default="", help=f"some of these, with commas: {', '.join(names)}")
    parser.add_argument("--seed", type=int, nargs="+", help="these seeds instead of the profile's")
    parser.add_argument("--transport", choices=TRANSPORTS, help="this transport only")
    parser.add_argument("--limit", type=float, help="stop after this many seconds instead of the profile's")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="where the tables are written as JSON")
    parser.add_argument("--continue", type=Path, dest="earlier", help="a table to add to: what it has is not played")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/reliability.md")
    arguments = parser.parse_args()
    arguments.only = set(filter(None, arguments.only.split(",")))
    if unknown := arguments.only - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


def profile_of(arguments: argparse.Namespace) -> Profile:
    """The profile as the arguments want it."""
    profile = PROFILES[arguments.profile]
    if arguments.only:
        # Whoever asks for a scenario has the time for it.
        profile = replace(profile, limit=PROFILES["full"].limit)
    return profile if arguments.limit is None else replace(profile, limit=arguments.limit)


def planned(arguments: argparse.Namespace, profile: Profile, rows: Sequence[Row]) -> list[Turn]:
    """What is asked for and not among the rows of an earlier run."""
    had = {(row.scenario, row.transport, row.seed) for row in rows}
    transports = {arguments.transport} if arguments.transport else set(TRANSPORTS)
    seeds = tuple(arguments.seed or profile.seeds)
    asked = turns(profile, only=arguments.only, transports=transports, seeds=seeds)
    return [turn for turn in asked if (turn.name, turn.transport, turn.seed) not in had]


def main() -> int:
    """Run it; 1 when a scenario fails, a control is not noticed, or something did not run."""
    arguments = parsed()
    # The faults are on purpose; what this process's own clients say about them would drown the lines.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger().addHandler(logging.NullHandler())
    profile = profile_of(arguments)
    rows: list[Row] = []
    wanted = 0
    began = time.monotonic()
    try:
        rows += [] if arguments.earlier is None else report.read(arguments.earlier, profile.name)
        plan = planned(arguments, profile, rows)
        wanted = len(rows) + len(plan)
        asyncio.run(bounded(profile, plan, rows, arguments.results))
    except ChaosError as error:
        sys.stderr.write(f"chaos: {error}\n")
    except TimeoutError:
        sys.stderr.write(f"chaos: not done within {profile.limit:.0f} s; is the machine busy with something else?\n")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.stderr.write("chaos: interrupted\n")
        if rows:
            sys.stderr.write(f"chaos: go on with --continue {report.write(rows, profile.name, arguments.results)}\n")
        return INTERRUPTED
    return told(wanted, rows, profile, time.monotonic() - began, arguments)


def told(wanted: int, rows: Sequence[Row], profile: Profile, seconds: float, asked: argparse.Namespace) -> int:
    """Write the table and say how it went."""
    if not rows:
        return 1
    say(f"written to {report.write(rows, profile.name, asked.results)}")
    if asked.publish:
        report.publish(rows, profile.name)
    failed = [row for row in rows if not row.passed]
    for row in failed:
        say(f"NOT AS IT SHOULD BE: {row.scenario} on {row.transport}, seed {row.seed}")
    say(f"{len(rows) - len(failed)} of {wanted} turns as they should be, {seconds:.0f} s")
    return 0 if len(rows) == wanted and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
