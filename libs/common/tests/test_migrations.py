"""Migrating the ledger: again, from two processes at once, and into the schema that the tables declare."""

from __future__ import annotations

import asyncio
import sys
from importlib.resources import files

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData

from carillon.errors import ConfigurationError
from carillon.ledger.tables import PARTITION, SCHEMA, metadata
from carillon.migrations import LOCK, migrate, run_migrations
from carillon.testing import eventually

PACKAGE = "carillon.ledger.migrations"
ADVISORY = """from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())"""
MIGRATE = (
    f"import asyncio, sys; from carillon.migrations import migrate; asyncio.run(migrate(sys.argv[1], {PACKAGE!r}))"
)


@pytest.fixture
def empty_url(new_database) -> str:
    return new_database()


async def ask(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def tables(url: str, schema: str = SCHEMA) -> set[str]:
    query = "select table_name from information_schema.tables where table_schema = $1"
    return {row["table_name"] for row in await ask(url, query, schema)}


async def test_migrating_twice_is_migrating_once(empty_url):
    await migrate(empty_url, PACKAGE)
    first = await ask(empty_url, "select * from carillon.alembic_version")
    await migrate(empty_url, PACKAGE, PACKAGE)

    assert await ask(empty_url, "select * from carillon.alembic_version") == first
    declared = {table.name for table in metadata.tables.values()}
    found = {name for name in await tables(empty_url) if PARTITION.fullmatch(name) is None}
    assert found == declared | {"alembic_version"}
    assert await tables(empty_url, "public") == set()


async def test_two_processes_may_migrate_at_once(empty_url):
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, empty_url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        for _ in range(2)
    ]

    ends = [await asyncio.wait_for(process.communicate(), 60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], ends
    assert len(await ask(empty_url, "select * from carillon.alembic_version")) == 1


async def test_whoever_comes_second_waits_for_the_lock_of_the_first(empty_url):
    holder = await asyncpg.connect(empty_url, timeout=5)
    await holder.execute("select pg_advisory_lock($1)", LOCK)
    waiting = asyncio.create_task(migrate(empty_url, PACKAGE))

    await eventually(lambda: holder.fetchval(f"select count(*) {ADVISORY} and not granted"))
    before = await tables(empty_url)
    await holder.close()
    await asyncio.wait_for(waiting, 30)

    assert before == set()
    assert "runs" in await tables(empty_url)


async def test_a_migration_that_fails_leaves_nothing_half_done_and_lets_go_of_the_lock(empty_url):
    connection = await asyncpg.connect(empty_url, timeout=5)
    await connection.execute("create schema carillon; create table carillon.dead_letters (id int)")

    with pytest.raises(Exception, match="already exists"):
        await migrate(empty_url, PACKAGE)

    held = await connection.fetchval(f"select count(*) {ADVISORY}")
    await connection.execute("drop table carillon.dead_letters")
    await connection.close()
    assert (await tables(empty_url), held) == (set(), 0)
    await migrate(empty_url, PACKAGE)


def test_alembic_on_its_own_is_told_what_to_run_instead():
    config = Config()
    config.set_main_option("script_location", str(files(PACKAGE)))
    config.set_main_option("path_separator", "os")

    with pytest.raises(ConfigurationError, match="run that instead of alembic"):
        command.upgrade(config, "head")


def test_metadata_without_a_schema_is_refused_in_words():
    with pytest.raises(ValueError, match=r"the metadata names no schema; write MetaData\(schema=...\)"):
        run_migrations(MetaData())
