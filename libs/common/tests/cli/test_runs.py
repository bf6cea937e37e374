"""`carillon runs`: lists with filters, and all of one run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from subprocess import CompletedProcess

import asyncpg
import pytest

from carillon.migrations import migrate

Asked = Callable[..., CompletedProcess[str]]
FIRST, SECOND = "01900000-0000-7000-8000-000000000001", "01900000-0000-7000-8000-000000000002"
WORKER = "01900000-0000-7000-8000-00000000000a"
ROWS = f"""
insert into carillon.runs (id, ended_on, domain, task, state, args, labels, created_at, started_at, finished_at,
    worker_id, error, attempt, progress, gate, gated, unique_key, after, callback_url)
values
    ('{FIRST}', '2026-03-01', 'shop', 'shop.pack', 'failed', '{{"order": 17}}', '{{"customer": "7"}}',
     '2026-03-01T12:00Z', '2026-03-01T12:00Z', '2026-03-01T12:00:02.5Z', '{WORKER}',
     '{{"type": "ValueError", "message": "\\u001b[31mno paper\\nleft"}}', 2,
     '{{"fraction": 0.5, "stage": "print", "beat_at": "2026-03-01T12:00:02Z"}}',
     null, false, null, null, null),
    ('{SECOND}', 'infinity', 'shop', 'shop.add', 'queued', '{{}}', '{{}}', '2026-03-01T13:00Z', null, null, null,
     null, 1, null, '', true, 'basket', '{{"when": "ended", "otherwise": "cancel", "delay_seconds": 90}}',
     'https://shop.example/told?token=sesame')
"""
TRY = f"""
insert into carillon.attempts (run_id, attempt, ended_on, outcome, started_at, finished_at, error, log)
values ('{FIRST}', 1, '2026-03-01', 'retried', '2026-03-01T11:59Z', '2026-03-01T11:59:01Z', '{{"message": "busy"}}',
    E'first word\\n\\x1b[31mlast word')
"""
#: A run of which four attempts ended, each with a log, and the last one with a long traceback.
TRIED = "01900000-0000-7000-8000-000000000004"
MANY = f"""
insert into carillon.runs (id, ended_on, domain, task, state, args, created_at, started_at, finished_at, worker_id,
    attempt, log, error)
select '{TRIED}', '2026-02-01', 'shop', 'shop.fold', 'failed', '{{}}', '2026-02-01T12:00Z', '2026-02-01T12:00Z',
    '2026-02-01T12:01Z', '{WORKER}', 4, 'log 4',
    jsonb_build_object('type', 'ValueError', 'message', 'torn', 'traceback', string_agg(
        '    frame ' || n || chr(9) || 'x' || chr(27), chr(10) order by n))
from generate_series(1, 45) n
"""
EARLIER = f"""
insert into carillon.attempts (run_id, attempt, ended_on, outcome, started_at, finished_at, log)
select '{TRIED}', n, '2026-02-01', 'retried', '2026-02-01T11:00Z', '2026-02-01T11:01Z', 'log ' || n
from generate_series(1, 3) n
"""


NEED = f"insert into carillon.needs (run_id, on_id, outcome) values ('{SECOND}', '{FIRST}', 'failed')"


async def prepare(url: str) -> None:
    await migrate(url, "carillon.ledger.migrations")
    connection = await asyncpg.connect(url, timeout=5)
    await connection.execute(ROWS)
    await connection.execute(TRY)
    for statement in (NEED, MANY, EARLIER):
        await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="module")
def url(new_database) -> str:
    made = new_database()
    asyncio.run(prepare(made))
    return made


@pytest.fixture
def asked(place, url: str) -> Asked:
    return lambda *words: place.command(*words, DATABASE_URL=url)


def test_runs_are_a_table_newest_first(asked) -> None:
    shown = asked("runs")

    heading, newest, before, *_ = shown.stdout.splitlines()
    assert shown.returncode == 0, shown.stderr
    assert heading.split() == ["id", "task", "state", "attempt", "created_at", "seconds", "labels", "error"]
    assert newest.split()[:3] == [SECOND, "shop.add", "queued"]
    assert before.split()[:3] == [FIRST, "shop.pack", "failed"]
    assert "customer:7" in before
    assert "2.50" in before
    assert "\x1b" not in shown.stdout


def test_filters_choose_runs_and_nothing_found_is_said(asked) -> None:
    chosen = asked("runs", "--state", "failed", "--label", "customer:7", "--arg", "order:17", "--longer", "2", "--json")
    nothing = asked("runs", "--since", "2099-01-01")

    (row,) = [json.loads(line) for line in chosen.stdout.splitlines()]
    assert (row["id"], row["labels"]) == (FIRST, {"customer": "7"})
    assert (nothing.returncode, nothing.stdout) == (0, "No run.\n")


def test_one_run_is_shown_with_its_attempts(asked) -> None:
    shown, as_json = asked("runs", "show", FIRST), asked("runs", "show", FIRST, "--json")

    assert shown.returncode == 0, shown.stderr
    assert 'arguments        {"order":17}' in shown.stdout
    assert "progress         50% print" in shown.stdout
    assert "no paper left" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "busy" in shown.stdout
    assert "attempt 1 failed, and is tried again: busy" in shown.stdout
    assert [change["state"] for change in json.loads(as_json.stdout)["history"]][-1] == "failed"
    assert [attempt["outcome"] for attempt in json.loads(as_json.stdout)["attempts"]] == ["retried", "failed"]


def test_an_attempt_tells_what_it_logged_and_nothing_that_a_terminal_would_obey(asked) -> None:
    shown = asked("runs", "show", FIRST)

    assert "\nLog of attempt 1\n  first word\n  \ufffd[31mlast word\n" in shown.stdout
    assert "Traceback" not in shown.stdout


def test_of_a_long_traceback_and_of_many_attempts_the_last_are_told_and_said_to_be(asked) -> None:
    shown, as_json = asked("runs", "show", TRIED), asked("runs", "show", TRIED, "--json")

    text = shown.stdout
    assert shown.returncode == 0, shown.stderr
    assert "\nTraceback of attempt 4, the last 30 of 45 lines; --json has all\n      frame 16    x\ufffd\n" in text
    assert "      frame 45    x\ufffd\n\nLog of attempt 4\n  log 4\n" in text
    assert "frame 15" not in text
    assert [f"Log of attempt {number}\n" in text for number in (1, 2, 3)] == [False, True, True]
    assert "Tracebacks and logs are those of the last 3 attempts; --json has them all." in text
    assert [attempt["log"] for attempt in json.loads(as_json.stdout)["attempts"]] == [
        "log 1",
        "log 2",
        "log 3",
        "log 4",
    ]


def test_what_a_run_waits_for_is_told(asked) -> None:
    shown = asked("runs", "show", SECOND)

    assert shown.returncode == 0, shown.stderr
    assert "waits for        its turn at the limits of shop.add" in shown.stdout


def test_when_a_run_goes_on_what_keeps_others_out_and_whom_it_calls_back_are_told(asked) -> None:
    shown, as_json = asked("runs", "show", SECOND), asked("runs", "show", SECOND, "--json")
    ended = asked("runs", "show", FIRST)

    told = json.loads(as_json.stdout)
    assert "After others: goes on when all of them ended, however, 90 s later, else is cancelled\n" in shown.stdout
    assert [line.split() for line in shown.stdout.splitlines() if line.startswith(FIRST)] == [
        [FIRST, "shop.pack", "failed", "failed"]
    ]
    assert "calls back       https://shop.example\n" in shown.stdout
    assert "unique_key       basket\n" in shown.stdout
    assert (told["callback_origin"], [need["id"] for need in told["needs"]]) == ("https://shop.example", [FIRST])
    assert "sesame" not in shown.stdout + as_json.stdout
    assert "beat_at          2026-03-01 12:00:02\n" in ended.stdout


def test_statistics_have_a_line_for_each_task(asked) -> None:
    window = ("--since", "2026-03-01", "--until", "2026-03-02T00:00:00Z")
    shown, as_json, nothing = asked("stats", *window), asked("stats", *window, "--json"), asked("stats")

    assert shown.returncode == 0, shown.stderr
    assert "Now there is 1 queued." in shown.stdout
    assert shown.stdout.splitlines()[-1].split()[:5] == ["shop.pack", "1", "100.00%", "1", "0.00"]
    assert json.loads(as_json.stdout)["total"]["counts"] == {"failed": 1}
    assert "Nothing ended." in nothing.stdout


def test_a_run_that_nobody_knows_fails(asked) -> None:
    unknown = asked("runs", "show", "01900000-0000-7000-8000-000000000003")

    assert unknown.returncode == 1
    assert "No run has this id" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("runs", "--state", "lost"), "there is no state 'lost'"),
        (("runs", "--since", "yesterday"), "since is no moment"),
        (("runs", "--arg", "17"), "arg is a name, a colon and a value"),
        (("runs", "show", "7"), "no id of a run"),
        (("stats", "--since", "2026-01-01", "--until", "2026-02-02"), "at most 31 days"),
    ],
)
def test_what_was_mistyped_is_one_sentence(asked, words, told) -> None:
    refused = asked(*words)

    assert refused.returncode == 2
    assert told in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
