"""What a run costs under a backlog of a million, over what it costs under one of a thousand."""

from __future__ import annotations

import asyncio
from statistics import median
from typing import TYPE_CHECKING

from bench.errors import StuckError
from bench.fill import WAITING, fill, fill_and_wake
from bench.report import Figure

if TYPE_CHECKING:
    from bench.group import Bench
    from bench.ledger_facts import LedgerFacts
    from bench.ours import Carillon

LONG, SHORT = 1_000_000, 1_000
#: Executions that are measured under the long backlog, and refills of the short one.
EXECUTIONS, REFILLS = 20_000, 10
#: How long either may take, in seconds.
PATIENCE_SECONDS = 90.0
ROUNDS = 3


async def measured(bench: Bench) -> list[Figure]:
    """Both transports: with RabbitMQ the worker itself feeds the window from the ledger while it works."""
    figures = []
    for transport in ("rabbitmq", "postgres"):
        ratio = await _ratio(bench, await bench.ours(transport), transport)
        suffix = "" if transport == "rabbitmq" else "_postgres"
        figures.append(Figure(f"backlog_cost_ratio{suffix}", round(ratio, 3), "ratio", "lower"))
    return figures


async def _ratio(bench: Bench, ours: Carillon, transport: str) -> float:
    async with ours.facts() as facts:
        # The long backlog is filled once, and worked off a little in each round.
        long, short = [], []
        for number in range(min(bench.rounds, ROUNDS)):
            short.append(await _short(ours, facts))
            await fill(facts.connection, WAITING, LONG)
            long.append(await _long(ours, facts))
            bench.say(
                f"round {number + 1} on {transport}: {short[-1]:.0f} µs under 1,000, {long[-1]:.0f} µs under 1,000,000"
            )
            await ours.empty()
    return median(a / b for a, b in zip(long, short, strict=True))


async def _short(ours: Carillon, facts: LedgerFacts) -> float:
    """Microseconds for each execution while never more than 1,000 wait: refilled whenever they have ended."""
    seconds = 0.0
    async with ours.worker(facts):
        for _ in range(REFILLS):
            await fill_and_wake(facts, SHORT)
            await _until(facts, SHORT)
            seconds += (await facts.measured(SHORT)).seconds
            await facts.forget()
    return seconds / (REFILLS * SHORT) * 1e6


async def _long(ours: Carillon, facts: LedgerFacts) -> float:
    """Microseconds for each execution while a million wait, from the first start to the last of so many ends."""
    async with ours.worker(facts):
        await _until(facts, EXECUTIONS)
    done = await facts.completed()
    return done.seconds / done.count * 1e6


async def _until(facts: LedgerFacts, ended: int) -> None:
    """Wait until so many runs have ended."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await facts.ended() < ended:  # noqa: ASYNC110 - a table is asked, and tells nobody
                await asyncio.sleep(0.05)
    except TimeoutError:
        message = f"not {ended} of the runs of a backlog ended within {PATIENCE_SECONDS:.0f} s"
        raise StuckError(message) from None
