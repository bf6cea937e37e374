"""`carillon doctor`: looks at what the platform stands on, and says of each thing that it is well or what to do."""

from __future__ import annotations

import asyncio
import sys

from rich.console import Console
from rich.text import Text

from carillon.cli import examinations
from carillon.cli.exits import FAILED, OK, in_one_sentence
from carillon.cli.findings import Finding, Patient
from carillon.cli.settings import CommandSettings, platform_settings

#: No single examination takes longer.
EXAMINATION_SECONDS = 20.0
MARKS = {"well": ("ok  ", "green"), "doubtful": ("warn", "yellow"), "ill": ("FAIL", "bold red")}


def run() -> int:
    """Examine; 0 when nothing is ill."""
    return in_one_sentence(lambda: asyncio.run(_examine()))


async def _examine() -> int:
    settings = CommandSettings()
    patient = Patient(settings, platform_settings(settings))
    console, ill = Console(file=sys.stdout, highlight=False), 0
    for examine in examinations.ALL:
        for finding in await _within(examine, patient):
            _show(console, finding)
            ill += finding.state == "ill"
    console.print(f"\n{ill} of these need something done." if ill else "\nEverything is well.")
    return FAILED if ill else OK


async def _within(examine: examinations.Examination, patient: Patient) -> list[Finding]:
    subject = (examine.__doc__ or examine.__name__).rstrip(".")
    try:
        async with asyncio.timeout(EXAMINATION_SECONDS):
            return await examine(patient)
    except TimeoutError:
        return [
            Finding.ill(subject, f"no answer within {EXAMINATION_SECONDS:g} s", "see whether that server is overloaded")
        ]
    except Exception as error:  # noqa: BLE001 - the next examination is still wanted
        return [
            Finding.ill(subject, f"{type(error).__name__}: {error}", "mend what stands above first, then look again")
        ]


def _show(console: Console, finding: Finding) -> None:
    mark, style = MARKS[finding.state]
    line = Text.assemble((f" {mark} ", style), f"{finding.subject}: {finding.seen}")
    if finding.advice:
        line.append(f"\n      -> {finding.advice}", style="bold")
    console.print(line, soft_wrap=True)
