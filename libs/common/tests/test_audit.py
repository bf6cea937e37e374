"""The audit trail: one chain without a gap, whoever writes at once; and a trail that was touched is found out."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.ledger import audit_chain
from carillon.ledger.audit import MOST_DETAIL_BYTES, Actor, Audit, AuditSearch, record
from carillon.ledger.audit_chain import BEGINNING, Break, Link
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url
from carillon.testing import eventually

ADA = Actor("ada", "a test")
#: Everything that JSON escapes, and what writers of JSON do not agree about.
AWKWARD = 'a "quoted" \\ line\nand a tab\t, \x01\x1f\x7f, / < & \u2028 ü 🔔 \u200d'


@pytest.fixture(scope="module")
def template(new_database) -> str:
    made = new_database()
    asyncio.run(migrate(made, "carillon.ledger.migrations"))
    return made.rpartition("/")[2]


@pytest.fixture
def url(new_database, template) -> str:
    return new_database(template)


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(sqlalchemy_url(url), connect_args={"timeout": 5})
    yield engine
    await engine.dispose()


@pytest.fixture
def audit(engine: AsyncEngine) -> Audit:
    return Audit(engine)


@pytest.fixture
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, timeout=5)
    yield connection
    await connection.close()


@pytest.fixture
async def dozen(connection, monkeypatch) -> None:
    """Twelve entries, checked five at a time."""
    monkeypatch.setattr(audit_chain, "STRETCH", 5)
    entries = [ADA.did("schedule.paused", f"schedule-{number}", f"reason {number}") for number in range(1, 13)]
    await record(connection, *entries)


async def test_twenty_writers_at_once_make_one_chain_without_a_gap(url, audit):
    async def write(number: int) -> None:
        connection = await asyncpg.connect(url, timeout=10)
        for one in range(50):
            async with connection.transaction():
                await record(connection, Actor(f"writer-{number}", "a test").did("schedule.paused", f"{number}/{one}"))
        await connection.close()

    await asyncio.gather(*(write(number) for number in range(20)))

    verdict = await audit.verify()
    assert (verdict.sound.seq, verdict.broken) == (1000, None)
    newest = await audit.page(AuditSearch(limit=500))
    assert [row["seq"] for row in newest] == list(range(1000, 500, -1))
    assert [row["at"] for row in newest] == sorted((row["at"] for row in newest), reverse=True)


async def test_an_entry_says_who_did_what_to_what_why_and_from_where(connection, audit):
    await record(
        connection, ADA.did("schedule.paused", "nightly", "the disk is full", cron="0 2 * * *", times=[1, 2.5])
    )

    (row,) = await audit.page(AuditSearch())

    assert {name: row[name] for name in ("seq", "actor", "origin", "action", "subject", "reason", "details")} == {
        "seq": 1,
        "actor": "ada",
        "origin": "a test",
        "action": "schedule.paused",
        "subject": "nightly",
        "reason": "the disk is full",
        "details": {"cron": "0 2 * * *", "times": [1, 2.5]},
    }
    assert row["previous"] == BEGINNING.hash


async def test_both_kinds_of_connection_write_the_same_chain(connection, engine, audit):
    entry = ADA.did("schedule.paused", AWKWARD, AWKWARD, words=AWKWARD, seconds=60.0, none=None)

    await record(connection, entry, entry)
    async with engine.begin() as other:
        await record(other, entry, ADA.did("schedule.resumed", "nightly"))

    assert (await audit.verify()).broken is None
    first, *_, last = reversed(await audit.page(AuditSearch()))
    assert (first["subject"], first["reason"], first["details"]["words"]) == (AWKWARD,) * 3
    assert (last["seq"], last["reason"], last["details"]) == (4, None, {})


async def test_anyone_can_check_an_entry_with_json_and_sha256(connection, audit):
    await record(connection, *(ADA.did("schedule.paused", AWKWARD, AWKWARD, a=AWKWARD, b=60.0) for _ in range(3)))

    previous = "0" * 64
    for row in reversed(await audit.page(AuditSearch())):
        fields = {name: value for name, value in row.items() if name != "hash"}
        line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert row["hash"] == hashlib.sha256(line.encode()).hexdigest()
        assert row["previous"] == previous
        previous = row["hash"]


async def test_an_action_that_is_rolled_back_leaves_no_entry_and_no_gap(connection, engine, audit):
    await record(connection, ADA.did("schedule.paused", "first"))
    transaction = connection.transaction()
    await transaction.start()
    await record(connection, ADA.did("schedule.paused", "undone"))
    await transaction.rollback()
    async with engine.connect() as other:
        await record(other, ADA.did("schedule.paused", "never committed"))
    await record(connection, ADA.did("schedule.paused", "second"))

    assert [(row["seq"], row["subject"]) for row in await audit.page(AuditSearch())] == [(2, "second"), (1, "first")]
    assert (await audit.verify()).broken is None


async def test_an_entry_waits_for_the_one_before_it_to_be_committed(url, connection, audit):
    other = await asyncpg.connect(url, timeout=5)
    transaction = connection.transaction()
    await transaction.start()
    await record(connection, ADA.did("schedule.paused", "first"))

    waiting = asyncio.create_task(record(other, ADA.did("schedule.paused", "second")))
    locks = "select count(*) from pg_locks where not granted and pid = $1"
    await eventually(lambda: connection.fetchval(locks, other.get_server_pid()))
    await transaction.commit()
    await waiting
    await other.close()

    assert [row["subject"] for row in await audit.page(AuditSearch())] == ["second", "first"]


@pytest.mark.parametrize(
    "statement",
    [
        "update carillon.audit set reason = 'another' where seq = 3",
        "update carillon.audit set reason = 'another' where seq = 999",
        "delete from carillon.audit where seq = 12",
        "truncate carillon.audit",
        "set session_replication_role = replica; delete from carillon.audit",
        "insert into carillon.audit select * from carillon.audit on conflict (seq) do update set reason = 'another'",
    ],
)
async def test_the_table_refuses_to_change_or_lose_an_entry(connection, dozen, audit, statement):
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the audit trail only grows"):
        await connection.execute(statement)

    assert (await audit.verify()).sound.seq == 12


async def test_what_an_insert_claims_about_number_time_and_hash_does_not_count(connection, dozen, audit):
    await connection.execute(
        """insert into carillon.audit (seq, at, actor, origin, action, subject, details, previous, hash)
        values (3, '2001-01-01', 'mallory', 'a console', 'schedule.paused', 'x', '{ "b": 1, "a": 2 }', 'x', 'y')"""
    )

    newest = (await audit.page(AuditSearch(limit=1)))[0]
    assert (newest["seq"], newest["actor"], newest["at"] > "2026") == (13, "mallory", True)
    assert (await audit.verify()).broken is None


FORGED = """update carillon.audit set reason = 'forged', hash = encode(sha256(convert_to(replace(line, 'reason 7"',
    'forged"'), 'UTF8')), 'hex') from (select $${"action":"schedule.paused","actor":"ada","at":"$$ ||
    to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || $$","details":{},"origin":"a test","previous":"$$
    || previous || $$","reason":"reason 7","seq":7,"subject":"schedule-7"}$$ as line from carillon.audit where seq = 7)
    as before where seq = 7"""
TOUCHED = {
    "another reason": ("update carillon.audit set reason = 'another' where seq = 7", 7, "was changed"),
    "no reason": ("update carillon.audit set reason = null where seq = 7", 7, "was changed"),
    "another actor": ("update carillon.audit set actor = 'mallory' where seq = 1", 1, "was changed"),
    "another time": ("update carillon.audit set at = at + interval '1 microsecond' where seq = 7", 7, "was changed"),
    "other details": ("update carillon.audit set details = '{ }' where seq = 12", 12, "was changed"),
    "another hash": ("update carillon.audit set hash = repeat('a', 64) where seq = 7", 7, "was changed"),
    "a forged entry with a fitting hash": (FORGED, 8, "does not follow entry 7"),
    "a removed entry": ("delete from carillon.audit where seq = 7", 7, "is missing"),
    "a removed entry between two stretches": ("delete from carillon.audit where seq = 6", 6, "is missing"),
    "a removed beginning": ("delete from carillon.audit where seq < 3", 1, "is missing"),
    "a removed end": ("delete from carillon.audit where seq > 9", 10, "is missing, as is everything up to entry 12"),
    "everything removed": ("truncate carillon.audit", 1, "is missing, as is everything up to entry 12"),
    "a gap that was closed": (
        "delete from carillon.audit where seq = 7; update carillon.audit set seq = seq - 1 where seq > 7",
        7,
        "was changed",
    ),
    "two in another order": (
        """update carillon.audit set seq = 100 where seq = 7; update carillon.audit set seq = 7 where seq = 8;
        update carillon.audit set seq = 8 where seq = 100""",
        7,
        "was changed",
    ),
    "a head that went back": (
        "update carillon.audit_head set (seq, hash) = (select seq, hash from carillon.audit where seq = 9)",
        10,
        "is not the one that carillon.audit_head names",
    ),
    "a head with another hash": (
        "update carillon.audit_head set hash = repeat('a', 64)",
        12,
        "is not the one that carillon.audit_head names",
    ),
    "no head": ("delete from carillon.audit_head", 13, "cannot be entered"),
}


@pytest.mark.parametrize("name", TOUCHED)
async def test_a_trail_that_was_touched_is_broken_at_that_entry(connection, dozen, audit, name):
    statement, seq, words = TOUCHED[name]
    assert (await audit.verify()).broken is None

    await connection.execute(f"alter table carillon.audit disable trigger all; {statement}")

    verdict = await audit.verify()
    assert verdict.broken is not None
    assert (verdict.broken.seq, verdict.broken.fault[: len(words)]) == (seq, words)


async def test_a_chain_that_was_computed_anew_contradicts_what_was_noted(connection, dozen, audit):
    noted = (await audit.verify()).sound
    await connection.execute(
        """create temporary table kept as select * from carillon.audit;
        alter table carillon.audit disable trigger keep;
        delete from carillon.audit;
        update carillon.audit_head set seq = 0, hash = repeat('0', 64);
        insert into carillon.audit select seq, at, 'mallory', origin, action, subject, reason, details from kept
        order by seq"""
    )

    assert (await audit.verify()).broken is None
    assert (await audit.verify(noted)).broken == Break(
        12, "is not the one that was noted: it, or one before it, was written anew"
    )
    assert (await audit.verify(Link(20, noted.hash))).broken == Break(13, "is missing, as is everything up to entry 20")


async def test_many_who_verify_at_once_share_one_connection(url, connection, dozen):
    engine = create_async_engine(sqlalchemy_url(url), pool_size=1, max_overflow=0, pool_timeout=0.001)
    audit = Audit(engine)

    verdicts = await asyncio.gather(*(audit.verify() for _ in range(10)))

    await engine.dispose()
    assert [verdict.sound.seq for verdict in verdicts] == [12] * 10


async def test_without_its_head_nothing_is_entered_and_the_error_says_what_to_do(connection, dozen):
    await connection.execute("delete from carillon.audit_head")

    with pytest.raises(asyncpg.RaiseError, match="restore it from a backup"):
        await record(connection, ADA.did("schedule.paused", "nightly"))


async def test_pages_go_from_the_newest_on_and_filters_hold_together(connection, audit):
    await record(connection, *(ADA.did("schedule.paused", f"s{number % 2}") for number in range(6)))
    middle = await connection.fetchval("select clock_timestamp()")
    await record(connection, *(Actor("bob", "x").did("schedule.resumed", f"s{number % 2}") for number in range(6)))

    async def found(**search: object) -> list[int]:
        return [row["seq"] for row in await audit.page(AuditSearch(**search))]

    assert await found(limit=2) == [12, 11]
    assert await found(limit=2, before=11) == [10, 9]
    assert await found(before=1) == []
    assert await found(actor="ada", subject="s1") == [6, 4, 2]
    assert await found(action="schedule.resumed", since=middle, limit=3) == [12, 11, 10]
    assert await found(action="schedule.paused", since=middle) == []


async def test_what_cannot_be_kept_is_refused_before_anything_is_done():
    for name, subject, reason in (
        ("ada\0", "x", None), ("ada", "x\0", None), ("ada", "x", "\0"), ("ada", "x", "\ud800"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="NUL or half a character"):
            Actor(name, "a test").did("schedule.paused", subject, reason)
    with pytest.raises(ValueError, match="may have 500 characters, not 501"):
        ADA.did("schedule.paused", "x", "r" * 501)
    with pytest.raises(ValueError, match=r"'schedule\.exploded' is no action"):
        ADA.did("schedule.exploded", "x")


async def test_long_names_are_cut_and_details_beyond_the_limit_are_kept_as_their_hash(connection, audit):
    long = {"words": "ü" * MOST_DETAIL_BYTES}
    await record(connection, Actor("a" * 300, "o" * 300).did("schedule.paused", "s" * 300, "r" * 500, **long))

    (row,) = await audit.page(AuditSearch())

    written = json.dumps(long, separators=(",", ":"), ensure_ascii=False).encode()
    assert row["details"] == {"omitted_bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}
    assert (len(row["actor"]), len(row["origin"]), len(row["subject"]), len(row["reason"])) == (200, 200, 200, 500)
    assert (await audit.verify()).broken is None
