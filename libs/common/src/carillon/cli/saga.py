"""`carillon saga check`: each step of a saga fails in each way, workers die at each moment, and what is left is shown.

It runs in memory, by a held clock, and asks no server.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import iscoroutinefunction
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import orjson
import structlog
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from taskiq.exceptions import SendTaskError

from carillon.cli.exits import FAILED, OK, MistypedError, in_one_sentence
from carillon.cli.tables import print_table
from carillon.testing.crashes import Scenario, Trial
from carillon.testing.sagas import Check, NoSagaError, check

COLUMNS = ("step", "how it fails", "ends", "leaves", "moments", "violations")
FAULTS = ("step", "how it fails", "a worker died when", "ends", "left behind")
#: So many violations are shown; `--json` has all of them.
MOST_SHOWN = 20
#: Of the row in which no step fails.
NONE = "(none)"
NOT_AT_ALL = "not at all"
NOBODY = "(none died)"

Make = Callable[[], Scenario]


@dataclass(frozen=True, slots=True)
class _Row:
    """One way in which one step fails, with what came of it."""

    step: str
    way: str
    trial: Trial
    crashed: Sequence[Trial]
    violations: Sequence[Trial]


def run(name: str, *, as_json: bool) -> int:
    """Check the saga of a scenario; 0 when nothing was violated."""
    return in_one_sentence(lambda: _run(name, as_json=as_json))


def _run(name: str, *, as_json: bool) -> int:
    _silence_logs()
    make = _found(name)
    try:
        checked = _checked(make)
    except NoSagaError as error:
        message = f"{name} cannot be checked: {error}."
        raise MistypedError(message) from error
    except Exception as error:
        # Out of what the scenario does by itself: what its tasks raise ends their runs.
        fault = error.__cause__ if isinstance(error, SendTaskError) and error.__cause__ else error
        message = f"{name} cannot be checked ({_in_words(fault)})."
        raise MistypedError(message) from error
    rows = list(_rows(checked))
    if as_json:
        sys.stdout.write(f"{orjson.dumps(_as_json(checked, rows)).decode()}\n")
    else:
        _show(checked, rows)
    return FAILED if checked.violations else OK


def _checked(make: Make) -> Check:
    """Check it, and count the trials where there is a terminal; how many there will be shows in the end only."""
    columns = SpinnerColumn(), TextColumn("{task.completed:,} worlds made"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("checking", total=None)

        def counted() -> Scenario:
            progress.advance(bar)
            return make()

        return asyncio.run(check(counted))


def _rows(checked: Check) -> Iterator[_Row]:
    undisturbed = checked.undisturbed
    differ = [trial for trial in checked.crashed if trial.end != undisturbed.end]
    yield _Row(NONE, NOT_AT_ALL, undisturbed, checked.crashed, differ)
    for case in checked.cases:
        yield _Row(case.step, case.way.value, case.trial, case.crashed, case.violations)


def _show(checked: Check, rows: Sequence[_Row]) -> None:
    shown = ((*_named(row), _left(checked, row.trial), len(row.crashed), len(row.violations)) for row in rows)
    print_table(COLUMNS, shown, "")
    found = len(checked.violations)
    verdict = f"{found:,} of them left something else" if found else "each left all of it or nothing"
    sys.stdout.write(f"\n{checked.trials:,} trials, and {verdict}.\n")
    if not found:
        return
    sys.stdout.write(f"\nAll is {_told(checked.all)}\nNothing is {_told(checked.nothing)}\n\n")
    faults = (
        (row.step, row.way, trial.died or NOBODY, trial.end.state, _told(trial.end.effects))
        for row in rows
        for trial in row.violations
    )
    print_table(FAULTS, islice(faults, MOST_SHOWN), "")
    if found > MOST_SHOWN:
        sys.stdout.write(f"and {found - MOST_SHOWN:,} more; --json has them all.\n")


def _named(row: _Row) -> tuple[str, str, str]:
    return row.step, row.way, row.trial.end.state


def _left(checked: Check, trial: Trial) -> str:
    if trial.end.effects == checked.all:
        return "all"
    return "nothing" if trial.end.effects == checked.nothing else "neither"


def _told(effects: Any) -> str:
    return orjson.dumps(effects).decode()


def _as_json(checked: Check, rows: Sequence[_Row]) -> dict[str, Any]:
    return {
        "trials": checked.trials,
        "violations": len(checked.violations),
        "all": checked.all,
        "nothing": checked.nothing,
        "cases": [
            {
                "step": None if row.step == NONE else row.step,
                "way": row.way,
                "state": row.trial.end.state,
                "left": _left(checked, row.trial),
                "moments": len(row.crashed),
                "violations": [
                    {"died": trial.died, "state": trial.end.state, "effects": trial.end.effects}
                    for trial in row.violations
                ],
            }
            for row in rows
        ],
    }


def _found(name: str) -> Make:
    """What makes the scenario; raises `MistypedError` where there is none of this name."""
    module_name, colon, function_name = name.partition(":")
    if not colon or not function_name or not all(part.isidentifier() for part in module_name.split(".")):
        message = f"{name!r} is no scenario; write MODULE:FUNCTION, such as orders.scenarios:payment."
        raise MistypedError(message)
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(module_name)
    except Exception as error:
        message = f"The module {module_name} cannot be imported here ({_in_words(error)})."
        raise MistypedError(message) from error
    make = getattr(module, function_name, None)
    if not callable(make) or iscoroutinefunction(make):
        message = (
            f"{module_name} has no plain function {function_name}; what makes a scenario is a `def` without `async`."
        )
        raise MistypedError(message)
    _check_makes(name, make)
    return make  # type: ignore[no-any-return] # what it makes was looked at


def _check_makes(name: str, make: Callable[[], object]) -> None:
    try:
        made = make()
    except Exception as error:
        message = f"{name} makes no scenario ({_in_words(error)}); it takes no arguments, and returns one."
        raise MistypedError(message) from error
    if not isinstance(made, Scenario):
        message = f"{name} makes a {type(made).__name__}, and has to make a carillon.testing.crashes.Scenario."
        raise MistypedError(message)


def _in_words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _silence_logs() -> None:
    """Say nothing of what fails in the trials: all of it was meant to."""

    def drop(*_: object) -> NoReturn:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    logging.disable()
