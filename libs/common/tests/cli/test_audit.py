"""`carillon audit`: the newest entries, and whether the chain holds."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from subprocess import CompletedProcess

import asyncpg
import pytest

from carillon.ledger.audit import Actor, record
from carillon.migrations import migrate

ESCAPE = "\x1b[31m and a\nsecond line"

Audited = Callable[..., CompletedProcess[str]]


async def prepare(url: str) -> None:
    await migrate(url, "carillon.ledger.migrations")
    connection = await asyncpg.connect(url, timeout=5)
    entries = [Actor("ada", "a test").did("schedule.paused", f"schedule-{n}", "the disk is full") for n in range(5)]
    await record(connection, *entries, Actor("bob", "a test").did("schedule.resumed", "schedule-1", ESCAPE))
    await connection.close()


def change(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=5)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


@pytest.fixture
def url(new_database) -> str:
    made = new_database()
    asyncio.run(prepare(made))
    return made


@pytest.fixture
def audited(place, url: str) -> Audited:
    return lambda *words: place.command("audit", *words, DATABASE_URL=url)


def test_the_newest_entries_are_a_table(audited) -> None:
    shown = audited("--limit", "2")

    heading, newest, before = shown.stdout.splitlines()
    assert shown.returncode == 0, shown.stderr
    assert heading.split() == ["seq", "at", "actor", "action", "subject", "reason", "origin"]
    assert newest.split()[0::2][:2] == ["6", "bob"]
    assert before.split()[0] == "5"
    assert "the disk is full" in before
    assert "\x1b" not in shown.stdout
    assert "second line" in newest


def test_filters_choose_entries_and_nothing_found_is_said(audited) -> None:
    by_bob = audited(
        "--actor", "bob", "--action", "schedule.resumed", "--subject", "schedule-1", "--since", "2026-01-01"
    )
    nothing = audited("--since", "2099-01-01T00:00:00Z")

    assert len(by_bob.stdout.splitlines()) == 2
    assert (nothing.returncode, nothing.stdout) == (0, "No entry.\n")


def test_more_than_a_page_is_shown_where_more_is_wanted(audited, url) -> None:
    change(
        url,
        """
        insert into carillon.audit (actor, origin, action, subject, details)
        select 'eve', 'a test', 'run.paused', n::text, '{}' from generate_series(1, 600) n
    """,
    )

    shown = [json.loads(line)["seq"] for line in audited("--json", "--limit", "602").stdout.splitlines()]

    assert shown == list(range(606, 4, -1))


def test_entries_as_json_are_checked_with_json_and_sha256(audited) -> None:
    entries = [json.loads(line) for line in audited("--json").stdout.splitlines()]

    assert [entry["seq"] for entry in entries] == [6, 5, 4, 3, 2, 1]
    assert entries[0]["reason"] == ESCAPE
    for entry, before in zip(entries, [*entries[1:], {"hash": "0" * 64}], strict=True):
        hash_ = entry.pop("hash")
        line = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(line.encode()).hexdigest() == hash_
        assert entry["previous"] == before["hash"]


def test_a_chain_that_holds_is_said_with_what_to_note_elsewhere(audited) -> None:
    verified = audited("verify")

    noted = verified.stdout.split()[-1]
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("The chain holds: 6 entries.")
    assert noted.startswith("6:")
    assert audited("verify", "--noted", noted).returncode == 0
    contradicted = audited("verify", "--noted", f"6:{'a' * 64}")
    assert contradicted.returncode == 1
    assert "entry 6 is not the one that was noted" in contradicted.stderr


def test_a_chain_that_is_broken_fails_and_names_the_first_entry(audited, url) -> None:
    change(url, "alter table carillon.audit disable trigger keep; delete from carillon.audit where seq in (3, 5)")

    verified = audited("verify")

    assert verified.returncode == 1
    assert verified.stderr == "carillon: The chain is broken: entry 3 is missing. 2 entries before it hold.\n"


def test_the_doctor_examines_the_chain(place, url) -> None:
    well = place.command("doctor", DATABASE_URL=url)
    change(url, "alter table carillon.audit disable trigger keep; update carillon.audit set actor = 'x' where seq = 2")
    ill = place.command("doctor", DATABASE_URL=url)

    assert "ok   audit trail: the chain of 6 entries holds" in well.stdout
    assert "FAIL audit trail: entry 2 was changed" in ill.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--action", "schedule.exploded"), "There is no action 'schedule.exploded'; there are key.created"),
        (("--since", "yesterday"), "--since is no moment"),
        (("--until", "0001-01-01"), "--until is no moment"),
        (("verify", "--noted", "7"), "--noted takes NUMBER:HASH"),
    ],
)
def test_what_was_mistyped_is_one_sentence(audited, words, told) -> None:
    refused = audited(*words)

    assert refused.returncode == 2
    assert told in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_limit_out_of_bounds_is_refused(audited) -> None:
    assert audited("--limit", "0").returncode == 2
    assert audited("--limit", "1000001").returncode == 2


def test_without_postgres_or_without_its_tables_it_says_what_to_do(place, new_database) -> None:
    away = place.command("audit", "verify", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    empty = place.command("audit", DATABASE_URL=new_database())

    assert (away.returncode, empty.returncode) == (1, 1)
    assert "check DATABASE_URL" in away.stderr
    assert "run `carillon migrate`" in empty.stderr
    assert [len(refused.stderr.splitlines()) for refused in (away, empty)] == [1, 1]
