"""What a task logs is kept with its attempt, the end of it, and without secrets."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
import structlog

from carillon import Retry, Run, Service, Tasks
from carillon.errors import TransientError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.telemetry.excerpt import Excerpt, redacted
from carillon.testing import InProcess, eventually, running

CANARY = "c4n4ry-5tr1ng"

log = structlog.get_logger("diary")
plain = logging.getLogger("diary")
tasks = Tasks("diary")


@tasks.task(retry=Retry(attempts=2, base=timedelta(milliseconds=10)))
async def write_down(name: str, *, run: Run) -> None:
    """Log in both ways, then fail once. Safe to run twice: it only logs."""
    log.info("a fact", name=name, attempt_number=run.attempt, api_token=CANARY)
    plain.warning("an old %s with password=%s", "line", CANARY)
    await asyncio.gather(*(asyncio.create_task(_later(name, index)) for index in range(3)))
    if run.attempt == 1:
        raise TransientError("once more")


async def _later(name: str, index: int) -> None:
    await asyncio.sleep(0)
    log.info("from a child task", name=name, index=index)


@tasks.task()
def write_from_a_thread() -> None:
    """Log from a thread. Safe to run twice: it only logs."""
    try:
        int(f"postgresql://me:{CANARY}@db/x")
    except ValueError:
        log.exception("from a thread")
        plain.exception("from a thread too")


@tasks.task()
async def say_nothing() -> None:
    """Log nothing. Safe to run twice: it does nothing."""


@tasks.task()
async def chatter() -> None:
    """Log much. Safe to run twice: it only logs."""
    for number in range(500):
        log.info("x" * 100, number=number)


def new_run(task: str, args: str = "{}") -> NewRun:
    return NewRun(id=new_id(), domain="diary", task=f"diary.{task}", args=args)


async def ended(platform, run: NewRun) -> Any:
    async def look():
        row = await platform.history.run(run.id)
        return row if row and row["finished_at"] else None

    return await eventually(look)


@pytest.fixture
def service(settings) -> Service:
    return Service(name="diary", settings=settings, tasks=tasks)


async def test_each_attempt_keeps_the_lines_that_it_logged_and_no_other_s(platform, service):
    runs = [new_run("write_down", f'{{"name": "{name}"}}') for name in ("anna", "berta")]

    async with running(service, platform):
        for run in runs:
            await platform.submit(run)
        for run in runs:
            await ended(platform, run)
    tried = [await platform.history.attempts(run.id) for run in runs]

    for name, attempts in zip(("anna", "berta"), tried, strict=True):
        assert [each["attempt"] for each in attempts] == [1, 2]
        for each in attempts:
            lines = each["log"].splitlines()
            assert len(lines) == 5
            assert lines[0].endswith(f" info    a fact name={name} attempt_number={each['attempt']} api_token=***")
            assert lines[1].endswith(" warning an old line with password=***")
            assert sorted(line[-7:] for line in lines[2:]) == ["index=0", "index=1", "index=2"]
            assert all(f"name={name}" in line for line in lines[2:])


async def test_the_log_of_a_thread_is_kept_without_its_secrets(platform, service):
    run = new_run("write_from_a_thread")

    async with running(service, platform):
        await platform.submit(run)
        end = await ended(platform, run)

    first, second = end["log"].splitlines()
    assert "error   from a thread exception=" in first
    assert "error   from a thread too exception=" in second
    assert "postgresql://me:***@db/x" in first
    assert "postgresql://me:***@db/x" in second


@pytest.mark.real("searches of every table")
async def test_no_secret_that_a_task_logs_is_found_in_the_ledger(platform, service):
    runs = [new_run("write_down", '{"name": "x"}'), new_run("write_from_a_thread")]

    async with running(service, platform):
        for run in runs:
            await platform.submit(run)
        for run in runs:
            await ended(platform, run)

    async with platform.ledger.transaction() as connection:
        logs = await connection.fetchval(
            "select string_agg(log, '|') from"
            " (select log from carillon.runs union all select log from carillon.attempts) l"
        )
    assert "password" in logs
    assert CANARY not in logs


async def test_only_the_end_of_much_is_kept_and_nothing_of_nothing(platform, service):
    runs = [new_run("chatter"), new_run("say_nothing")]

    async with running(service, platform):
        for run in runs:
            await platform.submit(run)
        much, nothing = [(await ended(platform, run))["log"] for run in runs]

    assert nothing is None
    assert 3_800 < len(much) <= 4_000
    assert much.endswith("number=499")


def test_at_most_fifty_lines_are_kept():
    excerpt = Excerpt()
    for number in range(80):
        excerpt.add("info", str(number))

    lines = str(excerpt).splitlines()

    assert (len(lines), lines[0][-2:], lines[-1][-2:]) == (50, "30", "79")


def test_of_one_long_line_the_beginning_is_kept():
    excerpt = Excerpt()

    excerpt.add("info", "beginning " + "x" * 1_000_000)

    assert "beginning" in str(excerpt)
    assert len(str(excerpt)) < 1_100


@pytest.mark.parametrize(
    "text",
    [
        f"password={CANARY}",
        f"db_password: {CANARY}",
        f"PGPASSWORD={CANARY}",
        f'{{"client_secret": "{CANARY}"}}',
        f"{{'refresh_token': '{CANARY} with blanks'}}",
        f"{{'token': b'{CANARY}'}}",
        f'{{"secret": "with \\" a quote {CANARY}"}}',
        f"Authorization: Bearer {CANARY}",
        f"authorization=Basic {CANARY}",
        f"curl -H 'X-Api-Key: {CANARY}'",
        f"sent Bearer {CANARY} to it",
        f"postgresql://me:{CANARY}@db:5432/x",
        f"amqp://me:p@ss/{CANARY}@mq/",
        f"redis://:{CANARY}@cache/0",
        f"https://x.example/?a=1&access_token={CANARY}&b=2",
        f"Set-Cookie: {CANARY}",
    ],
)
def test_what_obviously_is_a_secret_is_taken_out_of_a_line(text):
    shown = redacted(text)

    assert CANARY not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text", ["12 of 30 tables", "https://x.example/a?b=c", "took 1.5 s: done", "mail to a@b.example", "12:30:01 begun"]
)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [("password", 12345), ("headers", {"Authorization": f"Bearer {CANARY}"}), ("config", {"dsn": CANARY})],
)
def test_a_secret_among_the_facts_of_a_line_is_taken_out(name, value):
    excerpt = Excerpt()

    excerpt.add("info", "configured", {name: value})

    assert CANARY not in str(excerpt)
    assert "12345" not in str(excerpt)
    assert "***" in str(excerpt)


def test_a_secret_that_a_long_line_is_cut_in_is_not_half_shown():
    excerpt = Excerpt()

    excerpt.add("info", "x" * 960 + f" postgresql://me:{CANARY * 20}@db/x")

    assert CANARY not in str(excerpt)


async def test_in_process_tasks_log_for_the_test_to_see():
    domain = InProcess(tasks, {})

    await domain.run(write_from_a_thread)

    assert domain.log.count("from a thread") == 2
    assert CANARY not in domain.log
