"""Real servers, storage and tools for the tests of backup."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
from obstore.store import LocalStore
from sqlalchemy.ext.asyncio import create_async_engine

from backup.dumps import Dumps
from backup.sources import Source, parse_source
from backup.store import BackupStore
from backup.tools import Tools, tools_for
from carillon.embedded.servers import Servers
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url
from carillon.testing.blocking import wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


CONTENTS = """
create table orders (id bigint generated always as identity primary key, item text not null, cents int not null,
                     euros numeric generated always as (cents / 100.0) stored, placed timestamptz default now());
insert into orders (item, cents) select md5(n::text), n from generate_series(1, 20000) as n;
create sequence tickets;
select nextval('tickets');
"""


@pytest.fixture
async def platform_url(new_database: Callable[[], str]) -> str:
    """A database with backup's own tables and some rows of others."""
    url = new_database()
    await migrate(url, "backup.migrations")
    connection = await asyncpg.connect(url)
    await connection.execute(CONTENTS)
    await connection.close()
    return url


@pytest.fixture
def source(platform_url: str) -> Source:
    return parse_source("platform", platform_url)


@pytest.fixture
async def connection(platform_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Somebody else who works on the database."""
    connection = await asyncpg.connect(platform_url)
    yield connection
    await connection.close()


@pytest.fixture
async def records(platform_url: str) -> AsyncIterator[BackupStore]:
    engine = create_async_engine(sqlalchemy_url(platform_url))
    yield BackupStore(engine)
    await engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the storage keeps its files."""
    return tmp_path / "storage"


@pytest.fixture
def storage(folder: Path) -> LocalStore:
    return LocalStore(folder, mkdir=True)


@pytest.fixture
def dumps(source: Source, storage: LocalStore, records: BackupStore) -> Dumps:
    return Dumps({"platform": source}, storage, records)


@pytest.fixture(scope="session")
def locked_url() -> Iterator[str]:
    """A PostgreSQL 18 that asks for a password."""
    with tempfile.TemporaryDirectory(prefix="carillon-backup-tests-") as home:
        Path(home).chmod(0o711)
        servers = Servers(Path(home), valkey=False)
        wait_for(servers.__aenter__(), seconds=150)
        yield servers.database_url
        wait_for(servers.stop())


@pytest.fixture
async def scratches(connection: asyncpg.Connection[asyncpg.Record]) -> Callable[[], object]:
    """Ask which scratch databases are on the server; others may be testing there, so only names of ours count."""

    async def names() -> set[str]:
        rows = await connection.fetch("select datname from pg_database where datname like 'carillon_scratch_%'")
        return {row["datname"] for row in rows}

    return names


@pytest.fixture
async def real_tools(connection: asyncpg.Connection[asyncpg.Record]) -> Tools:
    return await tools_for(connection.get_server_version().major)


@pytest.fixture
def gate(tmp_path: Path, real_tools: Tools) -> Gate:
    return Gate(tmp_path, real_tools)


class Gate:
    """The real tools, one of them behind a script that can stop half-way, and says when it has come there."""

    def __init__(self, home: Path, tools: Tools) -> None:
        self.tools, self.version = tools, tools.version
        self.folder = home / "tools"
        self.reached, self.opened = home / "reached", home / "opened"
        self.folder.mkdir()
        for name in ("pg_dump", "pg_restore"):
            self.script(name, f'exec {tools.folder}/{name} "$@"')

    def script(self, name: str, body: str) -> None:
        """Put these lines in a tool's place. They may use $REAL, and `wait_at_gate`."""
        real, file = self.tools.folder / name, self.folder / name
        lines = (
            "#!/bin/bash",
            f"REAL={real}",
            f'[ "$1" = --version ] && echo "{name} (PostgreSQL) {self.version}" && exit',
            f"wait_at_gate() {{ : > {self.reached}; while ! [ -e {self.opened} ]; do read -t 0.02 <> <(:); done; }}",
        )
        file.write_text("\n".join((*lines, body, "")))
        file.chmod(0o755)

    async def until_reached(self) -> None:
        """Wait until a script waits."""
        async with asyncio.timeout(30):
            while not self.reached.exists():  # noqa: ASYNC110 - another process says it, with a file
                await asyncio.sleep(0.01)

    def open(self) -> None:
        """Let the script go on."""
        self.opened.touch()
