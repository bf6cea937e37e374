"""Plain functions in processes that can be killed: what they can do, how they are stopped, and how they die."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import killable
import psutil
import pytest
from killable import JamError

from carillon import Run, Service, Tasks
from carillon.errors import ConfigurationError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.platform import Platform
from carillon.stored_results import stored_in
from carillon.testing import eventually, running
from carillon.worker import children
from carillon.worker.crossing import packed, unpacked

pytestmark = pytest.mark.long(seconds=120)

#: Processes know nothing of the transport, so that most of what they do is tried with one.
ONCE = pytest.mark.parametrize("transport", ["postgres"])


@pytest.fixture
def service(settings) -> Service:
    return Service(name="press", settings=settings, tasks=killable.tasks, says=[killable.Pressed])


@pytest.fixture
def note(tmp_path) -> Path:
    """Where the code of a process leaves word."""
    return tmp_path / "note"


async def submitted(platform: Platform, task: str, args: str = "{}", **options: Any) -> NewRun:
    run = NewRun(id=new_id(), domain="press", task=f"press.{task}", args=args, **options)
    await platform.submit(run)
    return run


async def ended(platform: Platform, run: NewRun) -> Any:
    async def look():
        row = await platform.history.run(run.id)
        return row if row and row["finished_at"] else None

    return await eventually(look, within=30)


async def result_of(platform: Platform, task: str, args: str = "{}", **options: Any) -> Any:
    return (await ended(platform, await submitted(platform, task, args, **options)))["result"]


def text_of(note: Path) -> str:
    return note.read_text() if note.exists() else ""


async def written(note: Path) -> str:
    async def look():
        return text_of(note)

    return await eventually(look, within=30)


async def gone(pid: int) -> None:
    async def look():
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True

    await eventually(look)


def quoted(note: Path) -> str:
    return f'{{"note": "{note}"}}'


@ONCE
async def test_a_process_stays_warm_for_the_next_run_and_ends_with_the_worker(platform, service):
    async with running(service, platform):
        first = await result_of(platform, "who", labels={"paper": "a4"})
        added = await result_of(platform, "add", '{"a": 40}')
        second = await result_of(platform, "who")

    assert added == 42
    assert first["pid"] == second["pid"] != os.getpid()
    assert (first["labels"], first["attempt"]) == ({"paper": "a4"}, 1)
    assert first["run"] != second["run"]
    await gone(first["pid"])


@ONCE
async def test_nothing_of_a_run_or_of_the_settings_is_in_the_words_of_its_process(platform, service):
    async with running(service, platform):
        await result_of(platform, "add", '{"a": 1}')
        (child,) = [p for p in psutil.Process().children() if "carillon.worker.child" in p.cmdline()]
        words = child.cmdline()

    assert words[1:4] == ["-P", "-m", "carillon.worker.child"]
    assert all(word.isdecimal() for word in words[4:])


@pytest.mark.real("workers")
@pytest.mark.parametrize("task", ["spin", "hold_everything"])
async def test_code_that_heeds_nothing_is_killed_and_its_slot_is_free(platform, settings, note, task):
    service = Service(name="press", settings=settings, tasks=killable.tasks, concurrency=1)

    async with running(service, platform):
        run = await submitted(platform, task, quoted(note))
        pid = int(await written(note))
        end = await ended(platform, run)
        await gone(pid)
        after = await result_of(platform, "add", '{"a": 1}')

    assert (end["state"], end["error"]["type"]) == ("failed", "TimeoutError")
    assert "ran longer than its timeout of 0.3 s" in end["error"]["message"]
    assert after == 3
    abandoned = service.metrics.registry.get_sample_value(
        "carillon_attempts_abandoned_total", {"task_name": f"press.{task}"}
    )
    assert abandoned is None


@ONCE
async def test_a_function_is_interrupted_where_it_sleeps_and_cleans_up(platform, service, note):
    async with running(service, platform):
        end = await ended(platform, await submitted(platform, "tidy_up", quoted(note)))

    assert end["error"]["type"] == "TimeoutError"
    assert note.read_text() == "tidied: it ran longer than its timeout of 0.3 s"


@ONCE
async def test_a_run_in_a_process_reports_live_and_is_cancelled(platform, service, receivers, note):
    async with running(service, platform):
        run = await submitted(platform, "wait_for_a_person", quoted(note))
        await written(note)

        async def progress():
            shown = (await platform.history.run(run.id))["progress"]
            return shown if shown and shown["fraction"] and "partial" in shown else None

        shown = await eventually(progress)
        receivers[-1].cancel(run.id, "not needed any more")
        end = await ended(platform, run)

    assert (shown["fraction"], shown["stage"], shown["partial"]) == (0.25, "waiting", {"so far": 1})
    assert (end["state"], end["error"]["message"]) == ("cancelled", "not needed any more")
    assert note.read_text() == "told: not needed any more"


@ONCE
@pytest.mark.parametrize(
    ("how", "told"),
    [("exit", "exit code 7"), ("segfault", "the signal SIGSEGV"), ("kill", "the signal SIGKILL; nobody here sent it")],
)
async def test_a_process_that_dies_fails_its_attempt_and_costs_no_worker(platform, service, how, told):
    async with running(service, platform):
        run = await submitted(platform, "die", f'{{"how": "{how}"}}')
        end = await ended(platform, run)

    first, second = await platform.history.attempts(run.id)
    assert (end["state"], end["result"], end["lost"]) == ("completed", "lived", 0)
    assert (first["outcome"], first["error"]["type"], second["outcome"]) == ("retried", "ProcessLost", "completed")
    assert told in first["error"]["message"]
    assert f"about to die how={how}" in first["log"]
    assert first["worker_id"] == second["worker_id"]


@ONCE
async def test_a_process_that_is_killed_while_it_rests_costs_no_attempt(platform, service):
    async with running(service, platform):
        resting = (await result_of(platform, "who"))["pid"]
        os.kill(resting, signal.SIGKILL)
        run = await submitted(platform, "who")
        end = await ended(platform, run)

    assert end["attempt"] == 1
    assert end["result"]["pid"] != resting


@ONCE
async def test_what_the_code_started_dies_with_its_process(platform, service, note):
    async with running(service, platform):
        end = await ended(platform, await submitted(platform, "leave_a_child", quoted(note)))
        await gone(int(note.read_text()))

    assert end["error"]["type"] == "ProcessLost"


@ONCE
async def test_a_process_that_was_left_with_a_thread_is_not_used_again(platform, service):
    async with running(service, platform):
        first = await result_of(platform, "leave_a_thread")
        second = await result_of(platform, "leave_a_thread")

    assert first != second


@ONCE
async def test_a_process_makes_way_for_a_new_one_after_its_runs(platform, service, monkeypatch):
    monkeypatch.setattr(children, "MOST_RUNS", 2)

    async with running(service, platform):
        pids = [(await result_of(platform, "who"))["pid"] for _ in range(3)]

    assert pids[0] == pids[1] != pids[2]


@ONCE
async def test_a_process_that_nobody_needs_ends(platform, service, monkeypatch):
    monkeypatch.setattr(children, "IDLE_SECONDS", 0.1)

    async with running(service, platform):
        await gone((await result_of(platform, "who"))["pid"])


@ONCE
async def test_results_that_can_be_kept_come_back_and_others_fail_the_run(platform, service):
    async with running(service, platform):
        ends = [
            await ended(platform, await submitted(platform, "return_what", f'{{"what": "{what}"}}'))
            for what in ("large", "event", "much", "object")
        ]
        said = await platform.ledger.pool.fetch("select type, data from carillon.events")

    assert [end["state"] for end in ends] == ["completed", "completed", "completed", "failed"]
    assert (len(ends[0]["result"]), ends[1]["result"]) == (200_000, {"sheets": 3})
    assert stored_in(ends[2]["id"], ends[2]["result"]).bytes == 1_000_002
    assert "the result cannot be kept" in ends[3]["error"]["message"]
    assert [(row["type"], row["data"]) for row in said] == [("press.pressed.v1", {"sheets": 3})]


@ONCE
@pytest.mark.parametrize(
    ("how", "state", "outcomes", "error"),
    [
        ("permanent", "failed", ["failed"], "PermanentError"),
        ("cancel", "cancelled", ["cancelled"], "Cancel"),
        ("jam", "failed", ["failed"], "JamError"),
        ("transient", "completed", ["retried", "completed"], "TransientError"),
        ("busy", "completed", ["retried", "completed"], "BusyError"),
        ("snooze", "completed", ["snoozed", "completed"], "Snooze"),
    ],
)
async def test_an_error_means_the_same_as_it_does_in_the_worker(platform, service, how, state, outcomes, error):
    async with running(service, platform):
        run = await submitted(platform, "fail", f'{{"how": "{how}"}}')
        end = await ended(platform, run)

    tried = await platform.history.attempts(run.id)
    assert (end["state"], [each["outcome"] for each in tried]) == (state, outcomes)
    first = tried[0]["error"]
    assert first["type"] == error
    assert ("killable.py" in first["traceback"], "in fail" in first["traceback"]) == (True, True)


@ONCE
async def test_what_a_process_logs_is_kept_with_the_attempt_without_its_secrets(platform, service):
    async with running(service, platform):
        run = await submitted(platform, "write_down")
        end = await ended(platform, run)

    assert end["log"].endswith(" info    a fact sheets=7 api_token=***")


@ONCE
async def test_a_log_line_of_a_process_says_to_which_run_and_trace_it_belongs(platform, service, capfd):
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with running(service, platform):
        run = await submitted(platform, "write_down", traceparent=traceparent)
        await ended(platform, run)

    (line,) = [line for line in capfd.readouterr().out.splitlines() if '"event":"a fact"' in line]
    assert f'"run":"{run.id}"' in line
    assert f'"trace_id":"{"a" * 32}"' in line


@pytest.mark.real("workers")
async def test_a_drain_stops_what_is_in_a_process_and_hands_its_run_back(platform, service, note, monkeypatch):
    monkeypatch.setattr(platform.settings, "carillon_drain_seconds", 0.1)

    async with running(service, platform):
        run = await submitted(platform, "wait_for_a_person", quoted(note))
        pid = int(await written(note))
    row = await platform.history.run(run.id)

    assert note.read_text() == "told: the worker stops"
    assert (row["state"], row["uncounted"], row["lost"]) == ("retrying", 1, 0)
    assert not psutil.pid_exists(pid)


@ONCE
@pytest.mark.parametrize("beats", [True, False])
async def test_an_attempt_of_which_nothing_is_heard_is_taken_for_hung(platform, service, beats):
    async with running(service, platform):
        run = await submitted(platform, "fall_silent", f'{{"beats": {str(beats).lower()}}}')
        end = await ended(platform, run)

    tried = await platform.history.attempts(run.id)
    if beats:
        assert (end["result"], len(tried)) == ("heard", 1)
        assert end["started_at"] <= end["beat_at"] <= end["finished_at"]
    else:
        assert [each["outcome"] for each in tried] == ["retried", "failed"]
        assert {each["error"]["type"] for each in tried} == {"Hung"}
        assert "it reported nothing for 0.3 s" in end["error"]["message"]


WORKER = """
import asyncio, sys
from carillon import Service
from carillon.settings import PlatformSettings
import killable
asyncio.run(Service(name="press", settings=PlatformSettings(), tasks=killable.tasks).run())
"""


@ONCE
@pytest.mark.parametrize("task", ["wait_for_a_person", "hold_on"])
async def test_a_process_dies_with_a_worker_that_is_killed(platform, note, task):
    settings = platform.settings
    secrets = {"DATABASE_URL": settings.database_url, "RABBIT_URL": settings.rabbit_url}
    env = {name: value.get_secret_value() for name, value in secrets.items() if value is not None}
    env |= {"RABBIT_QUEUE_PREFIX": settings.rabbit_queue_prefix, "PYTHONPATH": str(Path(__file__).parent)}
    env |= {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, env=env, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await submitted(platform, task, quoted(note))
        pid = int(await written(note))
    finally:
        worker.kill()
        await worker.wait()

    await gone(pid)


def test_an_error_crosses_without_any_of_its_code_being_executed():
    error = JamError(7, where="the roller")
    made = JamError.made

    crossed = unpacked(packed(error))

    assert type(crossed) is JamError
    assert JamError.made == made
    assert packed(crossed)["told"] == packed(error)["told"]


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (["nowhere:Unknown", "builtins:OSError", "builtins:Exception"], OSError),
        (["builtins:ExceptionGroup", "builtins:Exception"], Exception),
        (["builtins:SystemExit", "builtins:BaseException", "builtins:object"], Exception),
        (["os:system", "builtins:print", "builtins:Exception"], Exception),
        (["asyncio.exceptions:CancelledError", "builtins:BaseException"], Exception),
    ],
)
def test_what_is_no_known_error_is_the_next_above_it(kinds, found):
    told = '{"type": "Unknown", "message": "text"}'

    crossed = unpacked({"kinds": kinds, "text": "text", "told": told, "retry_after": None, "delay": None})

    assert type(crossed) is found
    assert packed(crossed)["told"] == told


def test_an_async_function_is_refused_a_process():
    with pytest.raises(ConfigurationError, match=r"add is async: .* leave out `process=True`"):

        @Tasks("x").task(process=True)
        async def add() -> None:
            """Do nothing."""


def test_a_function_that_a_process_could_not_find_is_refused():
    tasks = Tasks("x")

    @tasks.task(process=True)
    def inner() -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match="declare it at the top level of a module"):
        tasks.check([])


def test_a_function_that_needs_a_resource_is_refused_a_process():
    tasks = Tasks("x")

    @tasks.task(process=True)
    def needy(*, run: Run, path: Path) -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match="needs `path: Path`, and in a process of its own it can have `run"):
        tasks.check([Path])


def test_a_task_that_could_not_report_is_refused_silent_after():
    tasks = Tasks("x")

    @tasks.task(silent_after=timedelta(seconds=1))
    async def mute() -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match="it must be able to report"):
        tasks.check([])
