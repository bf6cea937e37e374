"""`carillon workflows list` and `show`: the graph of a workflow in a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import asyncpg
import pytest

from carillon.migrations import migrate

CARILLON = Path(sys.executable).with_name("carillon")
Asked = Callable[..., CompletedProcess[str]]
WAITS, FAILED, PLAIN = (f"01900000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))
ROWS = f"""
insert into carillon.tasks (name, domain, queue, schema, policy, doc)
select name, 'shop', 'shop', '{{}}', case when name = 'shop.add' then '{{}}' else '{{"workflow": {{}}}}' end::jsonb, ''
from unnest(array['shop.sell', 'shop.ship', 'shop.add']) as t(name);
insert into carillon.runs (id, ended_on, domain, task, state, args, created_at, started_at, finished_at, error, told,
    wake_at, origin)
values
    ('{WAITS}', 'infinity', 'shop', 'shop.sell', 'pending', '{{}}', '2026-03-01T12:00Z', '2026-03-01T12:00Z', null,
     null, 1001, 1002, '{{"version": 1, "code": "a", "changed": [{{"code": "b", "step": 3}}]}}'),
    ('{FAILED}', '2026-03-01', 'shop', 'shop.ship', 'failed', '{{}}', '2026-03-01T13:00Z', '2026-03-01T13:00Z',
     '2026-03-01T13:01Z', '{{"type": "StepFailedError", "message": "\\u001b[31mno ship"}}', 3, 3,
     '{{"version": 1, "code": "a"}}'),
    ('{PLAIN}', '2026-03-01', 'shop', 'shop.add', 'completed', '{{}}', '2026-03-01T14:00Z', null, '2026-03-01T14:00Z',
     null, null, null, null);
insert into carillon.steps (workflow_id, seq, domain, kind, name, digest, saw, at, outcome, attempt, started_at,
    ended_at)
select '{WAITS}', n + 1, 'shop', 'task', 'shop.pack', '', case n when 1 then '{{1}}' else '{{}}' end::int[],
    '2026-03-01T12:00Z', case when n % 100 = 0 then 'failed' else 'completed' end, 1, '2026-03-01T12:00Z',
    '2026-03-01T12:00:01Z'
from generate_series(1, 1000) n;
insert into carillon.steps (workflow_id, seq, domain, kind, name, digest, saw, at, due_at, outcome, result, error,
    attempt, started_at, ended_at)
values
    ('{WAITS}', 1, 'shop', 'approval', 'Shall we sell?', '', '{{}}', '2026-03-01T12:00Z', null, 'completed',
     '{{"approved": true, "by": "ada", "reason": "why not"}}', null, null, null, '2026-03-01T12:00:02Z'),
    ('{WAITS}', 1002, 'shop', 'approval', E'Shall we \\x1b[31mship?', '', '{{2, 3}}', '2026-03-01T12:01Z',
     '2026-03-02T12:00Z', null, null, null, null, null, null),
    ('{FAILED}', 1, 'shop', 'task', 'shop.reserve', '', '{{}}', '2026-03-01T13:00Z', null, 'completed', '1', null, 1,
     '2026-03-01T13:00Z', '2026-03-01T13:00:01Z'),
    ('{FAILED}', 2, 'shop', 'task', 'shop.charge', '', '{{1}}', '2026-03-01T13:00Z', null, 'failed', null,
     '{{"type": "ValueError", "message": "no money"}}', 3, '2026-03-01T13:00Z', '2026-03-01T13:00:02.5Z'),
    ('{FAILED}', 3, 'shop', 'repair', 'Try again?', '', '{{2}}', '2026-03-01T13:00Z', null, 'completed',
     '{{"approved": false, "by": "ada", "reason": null}}', null, null, null, '2026-03-01T13:00:09Z')
"""


async def prepare(url: str) -> None:
    await migrate(url, "carillon.ledger.migrations")
    connection = await asyncpg.connect(url, timeout=5)
    await connection.execute(ROWS)
    await connection.close()


@pytest.fixture(scope="module")
def url(new_database) -> str:
    made = new_database()
    asyncio.run(prepare(made))
    return made


@pytest.fixture
def asked(place, url: str) -> Asked:
    return lambda *words, **env: place.command(*words, DATABASE_URL=url, **env)


def test_workflows_are_a_table_newest_first_and_nothing_else_is_in_it(asked) -> None:
    lines = asked("workflows", "list").stdout.splitlines()

    assert [line.split()[:3] for line in lines[1:]] == [
        [FAILED, "shop.ship", "failed"], [WAITS, "shop.sell", "pending"],
    ]  # fmt: skip
    assert asked("workflows", "list", "--state", "pending", "--json").stdout.count("\n") == 1
    assert asked("workflows", "list", "--task", "shop.add").stdout == "No workflow.\n"


def test_a_fan_out_of_a_thousand_is_one_line_with_counts(asked) -> None:
    shown = asked("workflows", "show", WAITS).stdout

    assert shown.splitlines() == [
        f"shop.sell pending {WAITS}",
        "It waits for 1 approval.",
        "From step 3 on it went on in changed code.",
        "991 completed, 10 failed, 1 waiting",
        "│",
        "├ 1 approval approved Shall we sell?",
        "│   2.00 s; by ada: why not",
        "│",
        "├ 2-1001 x 1,000 shop.pack",
        "│   990 completed, 10 failed",
        "│",
        "├ 1002 approval waiting Shall we \ufffd[31mship?",
        "│   It waits for somebody to approve it, until 2026-03-02 12:00:00 UTC",
    ]


def test_a_failed_step_tells_its_attempts_and_why(asked) -> None:
    shown = asked("workflows", "show", FAILED).stdout

    assert "StepFailedError: \ufffd[31mno ship" in shown
    assert "├ 2 failed shop.charge\n│   2.50 s; 3 attempts; ValueError: no money\n" in shown
    assert "├ 3 repair done by hand Try again?\n│   9.00 s; by ada\n" in shown


def test_a_graph_that_is_not_for_a_terminal_has_no_colours(asked) -> None:
    assert "\x1b" not in asked("workflows", "show", WAITS).stdout


def in_terminal(env: dict[str, str], columns: int) -> str:
    """What the command writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    command = [CARILLON, "workflows", "show", WAITS]
    # The width that whoever runs the tests has is not this terminal's.
    env = {name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}} | {"TERM": "xterm-256color"}
    subprocess.run(command, env=env, stdin=theirs, stdout=theirs, check=True, timeout=60)
    os.close(theirs)
    written = b""
    with suppress(OSError):
        # Linux says EIO where nobody has the other end any more.
        while part := os.read(ours, 65536):
            written += part
    os.close(ours)
    return written.decode()


def test_a_graph_fits_a_narrow_terminal_in_colour_or_without(place, url: str) -> None:
    env = place.env | {"DATABASE_URL": url}

    coloured, plain = in_terminal(env, 40), in_terminal(env | {"NO_COLOR": "1"}, 40)

    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured.splitlines()]
    assert max(map(len, lines)) <= 40
    assert "├ 2-1001 x 1,000 shop.pack" in lines
    assert "\x1b[33mwaiting" in coloured
    assert "33m" not in plain


def test_a_workflow_as_json_has_every_step(asked) -> None:
    told = json.loads(asked("workflows", "show", WAITS, "--json").stdout)

    assert (told["id"], told["counts"]) == (WAITS, {"completed": 991, "failed": 10, "waiting": 1})
    assert [step["seq"] for step in told["steps"]] == list(range(1, 1003))
    assert told["steps"][1]["after"] == [1]


@pytest.mark.parametrize("run", [PLAIN, "01900000-0000-7000-8000-000000000009"])
def test_what_is_no_workflow_is_said_to_be_none(asked, run: str) -> None:
    shown = asked("workflows", "show", run)

    assert (shown.returncode, shown.stdout) == (1, "")
    assert "No workflow has this id" in shown.stderr
