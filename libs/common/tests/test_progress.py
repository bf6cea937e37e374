"""What attempts report while they execute: how far they are, and what they have so far."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from carillon import Retry, Run, Service, Tasks
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.ledger.search import Search
from carillon.settings import PlatformSettings
from carillon.testing import InProcess, eventually, running


class Gate:
    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.returns = threading.Event()


tasks = Tasks("report")


@tasks.task()
async def count_to(number: int, *, run: Run, gate: Gate) -> str:
    """Report often, then wait. Safe to run twice: it counts."""
    for step in range(number):
        run.progress((step + 1) / (number + 1), stage="count", message=f"{step + 1} of {number}")
        run.keep({"counted": step + 1})
    gate.seen["counted"] += 1
    await gate.open.wait()
    run.progress(1, stage="done", message="x" * 900)
    return "counted"


@tasks.task()
def count_in_a_thread(*, run: Run, gate: Gate) -> None:
    """Report from a thread, then wait. Safe to run twice: it counts."""
    run.progress(0.25, message="a nul \x00 and a half \udce9")
    gate.returns.wait(10)
    run.progress(0.5)


@tasks.task(retry=Retry(attempts=1, base=timedelta(milliseconds=10)))
async def report_nonsense(fraction: float, *, run: Run) -> None:
    """Report. Safe to run twice: it only raises."""
    run.progress(fraction)


def service(settings: PlatformSettings, gate: Gate) -> Service:
    @asynccontextmanager
    async def resources(_):
        yield {Gate: gate}

    return Service(name="report", settings=settings, tasks=tasks, resources=resources)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def new_run(task: str, args: str = "{}") -> NewRun:
    return NewRun(id=new_id(), domain="report", task=f"report.{task}", args=args)


async def ended(platform, run: NewRun) -> Any:
    async def look():
        row = await platform.history.run(run.id)
        return row if row and row["finished_at"] else None

    return await eventually(look)


def reporting(platform, run: NewRun, fraction: float):
    async def look():
        row = await platform.history.run(run.id)
        return row if row["progress"] and row["progress"]["fraction"] == fraction else None

    return eventually(look)


async def test_progress_is_visible_while_a_run_executes_and_the_last_word_stays(platform, gate, monkeypatch):
    writes = Counter()
    write = platform.ledger.__class__._progress

    async def counted(self, batch):
        writes["all"] += len(batch)
        return await write(self, batch)

    monkeypatch.setattr(type(platform.ledger), "_progress", counted)
    run = new_run("count_to", '{"number": 3000}')

    async with running(service(platform.settings, gate), platform):
        await platform.submit(run)
        during = (await reporting(platform, run, 3000 / 3001))["progress"]
        written = writes["all"]
        gate.open.set()
        after = (await ended(platform, run))["progress"]

    assert set(during) == {"fraction", "stage", "message", "eta_seconds", "at", "partial", "attempt"}
    assert (during["stage"], during["message"]) == ("count", "3000 of 3000")
    assert during["partial"] == {"counted": 3000}
    assert 0 <= during["eta_seconds"] < 1
    assert written <= 3
    assert (after["fraction"], after["stage"], after["message"], after["eta_seconds"]) == (1, "done", "x" * 500, 0)


async def test_a_function_in_a_thread_reports_too(platform, gate):
    run = new_run("count_in_a_thread")

    async with running(service(platform.settings, gate), platform):
        await platform.submit(run)
        during = await reporting(platform, run, 0.25)
        gate.returns.set()
        after = await ended(platform, run)

    assert during["state"] == "running"
    assert during["progress"]["message"] == "a nul \ufffd and a half ?"
    assert after["progress"]["fraction"] == 0.5


async def test_progress_that_cannot_be_written_disturbs_nothing(platform, gate, monkeypatch):
    async def refuse(self, batch):
        raise RuntimeError("no")

    monkeypatch.setattr(type(platform.ledger), "_progress", refuse)
    run = new_run("count_to", '{"number": 5}')
    gate.open.set()

    async with running(service(platform.settings, gate), platform):
        await platform.submit(run)
        end = await ended(platform, run)

    assert (end["state"], end["result"], end["progress"]) == ("completed", "counted", None)


async def test_what_another_attempt_or_worker_reports_changes_nothing(platform, gate):
    run, worker = new_run("count_to", '{"number": 1}'), new_id()
    await platform.submit(run)
    await platform.ledger.enrol(worker, "report", "here", 1, "0", 1)
    assert await platform.ledger.start((run.id, 1, worker))

    await platform.ledger.progress((new_id(), run.id, 1, '{"fraction": 0.1}'))
    await platform.ledger.progress((worker, run.id, 2, '{"fraction": 0.2}'))
    before = await platform.history.run(run.id)
    await platform.ledger.progress((worker, run.id, 1, '{"fraction": 0.3}'))
    after = await platform.history.run(run.id)

    assert (before["progress"], after["progress"]) == (None, {"fraction": 0.3})


@tasks.task(retry=Retry(attempts=2, base=timedelta(milliseconds=10), cap=timedelta(milliseconds=10)))
async def falter(*, run: Run, gate: Gate) -> None:
    """Report, and fail the first time. Safe to run twice: it counts."""
    if run.attempt == 1:
        run.progress(0.75, stage="nearly")
        run.keep({"rows": 7})
        raise RuntimeError("try again")
    gate.seen["again"] += 1
    await gate.open.wait()


async def test_what_an_attempt_reported_says_nothing_about_the_next(platform, gate):
    run = new_run("falter")

    async def is_tried_again() -> bool:
        return gate.seen["again"] > 0

    async with running(service(platform.settings, gate), platform):
        await platform.submit(run)
        await eventually(is_tried_again)
        during = (await platform.history.run(run.id))["progress"]
        gate.open.set()
        await ended(platform, run)

    assert (during["fraction"], during["stage"], during["partial"]) == (None, None, {"rows": 7})


@pytest.mark.real("searches")
async def test_a_list_shows_what_the_current_attempt_reported(platform):
    run, worker = new_run("count_to", '{"number": 1}'), new_id()
    await platform.submit(run)
    await platform.ledger.enrol(worker, "report", "here", 1, "0", 1)
    await platform.ledger.start((run.id, 1, worker))

    async def listed(report: str) -> Any:
        await platform.ledger.progress((worker, run.id, 1, report))
        (row,) = await platform.history.search(Search(task="report.count_to"))
        return row["progress"]

    assert await listed('{"attempt": 1, "fraction": 0.3, "partial": [1]}') == {"attempt": 1, "fraction": 0.3}
    assert await listed('{"attempt": 0, "fraction": 0.9}') is None


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match=r"progress is a fraction from 0 to 1, not "):
        Run(id=new_id(), task="t", domain="d").progress(fraction)


@pytest.mark.parametrize("value", [object(), "x" * 65_536, "\x00", float("nan"), [float("inf")]])
def test_a_partial_result_that_cannot_be_kept_is_refused(value):
    with pytest.raises(ValueError, match=r"the partial result"):
        Run(id=new_id(), task="t", domain="d").keep(value)


def test_a_partial_result_may_have_keys_that_are_no_text_as_a_result_may():
    run = Run(id=new_id(), task="t", domain="d")

    run.keep({1: "one", "none": None})

    assert run.kept == '{"1":"one","none":null}'


def test_the_time_that_is_left_follows_from_the_pace_so_far():
    run = Run(id=new_id(), task="t", domain="d")
    run.began -= 30

    run.progress(0.25)
    quarter = run.reported
    run.progress(0)

    assert quarter.eta_seconds == pytest.approx(90, abs=1)
    assert run.reported.eta_seconds is None


async def test_in_process_tasks_report_to_the_test():
    gate = Gate()
    gate.open.set()
    domain = InProcess(tasks, {Gate: gate})

    await domain.run(count_to, number=2)

    assert [round(each.fraction, 2) for each in domain.progress] == [0.33, 0.67, 1]
    assert domain.kept == {"counted": 2}
