"""The private servers of a run: two PostgreSQL, a Valkey, and a RabbitMQ where a scenario wants one."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aio_pika
import asyncpg

from carillon.embedded.folder import StateFolder
from carillon.embedded.postgres import Postgres
from carillon.embedded.valkey import Valkey
from carillon.migrations import migrate
from carillon.testing.rabbitmq import RabbitMQ
from carillon.testing.rabbitmq_node import Node
from carillon.testing.servers import with_database
from chaos.domain import EFFECTS
from chaos.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What `pg_ctl stop -m immediate` sends: no checkpoint, every session gone, recovery at the next start.
IMMEDIATE = ((signal.SIGQUIT, 10.0),)
TEMPLATE = "chaos_template"
EFFECTS_TEMPLATE = "chaos_effects_template"

#: Notes each time that a run becomes terminal, or that the end of a terminal run changes. It sees what any statement
#: does, and also a row that moves between partitions.
OBSERVER = """
create schema chaos;
create table chaos.ends (run_id uuid not null, state text not null, finished_at timestamptz, at timestamptz not null);
create function chaos.note_end() returns trigger language plpgsql as $$
begin
    insert into chaos.ends values (new.id, new.state, new.finished_at, clock_timestamp());
    return null;
end $$;
create trigger chaos_end after insert or update on carillon.runs for each row
    when (new.state in ('completed', 'failed', 'cancelled', 'partial')) execute function chaos.note_end();
"""


class Servers:
    """Started together, stopped together; nothing of them is left."""

    def __init__(self, *, rabbitmq: bool) -> None:
        self._wants_rabbitmq = rabbitmq
        self._open = AsyncExitStack()
        self._databases = 0
        self.home = Path()
        self.node: Node | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _start(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="carillon-chaos-"))
        self._open.callback(shutil.rmtree, self.home, ignore_errors=True)
        # Run by root, PostgreSQL is another user and must be able to pass through.
        self.home.chmod(0o711)
        rabbit = RabbitMQ()
        if self._wants_rabbitmq:
            # A start that is interrupted goes on in its thread; what it started is stopped all the same.
            starting = asyncio.ensure_future(asyncio.to_thread(rabbit.private))
            self._open.push_async_callback(_stop_node, starting)
        ledger, effects = (self._open.enter_context(StateFolder(self.home / name)) for name in ("ledger", "effects"))
        self._open.callback(_remove_data, ledger, effects)
        self.postgres, self.valkey, self.effects = Postgres(ledger), Valkey(ledger), Postgres(effects)
        for server in (self.postgres, self.valkey, self.effects):
            self._open.push_async_callback(server.stop)
            await server.start()
        await self._make_templates()
        if self._wants_rabbitmq:
            self.node = await asyncio.shield(starting)
            if self.node is None:
                message = f"{rabbit.missing}; or run with --transport postgres"
                raise NotReadyError(message)

    async def _make_templates(self) -> None:
        for server, name in ((self.postgres, TEMPLATE), (self.effects, EFFECTS_TEMPLATE)):
            await execute(server.url, f"create database {name}")
        await migrate(with_database(self.postgres.url, TEMPLATE), "carillon.ledger.migrations", "gateway.migrations")
        await execute(with_database(self.postgres.url, TEMPLATE), OBSERVER)
        await execute(with_database(self.effects.url, EFFECTS_TEMPLATE), EFFECTS)

    async def databases(self) -> tuple[str, str]:
        """A new ledger and a new database of effects."""
        self._databases += 1
        name = f"chaos_{self._databases}"
        for server, template in ((self.postgres, TEMPLATE), (self.effects, EFFECTS_TEMPLATE)):
            await execute(server.url, f"create database {name} template {template}")
        return with_database(self.postgres.url, name), with_database(self.effects.url, name)

    async def drop(self, *urls: str) -> None:
        """Drop databases, whoever is still connected to them."""
        for url in urls:
            await execute(with_database(url, "postgres"), f"drop database {url.rpartition('/')[2]} with (force)")

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against our node."""
        if self.node is None:
            message = "this run has no RabbitMQ"
            raise NotReadyError(message)
        return await asyncio.to_thread(self.node.ctl, *arguments)

    @property
    def url_of_node(self) -> str:
        """Where our RabbitMQ is; raises `NotReadyError` where this run has none."""
        if self.node is None:
            message = "this run has no RabbitMQ"
            raise NotReadyError(message)
        return self.node.url

    async def restart_postgres(self) -> None:
        """Stop the ledger's server as `pg_ctl restart -m immediate` does, and start it again on its data and port."""
        if self.postgres.child is not None:
            await self.postgres.child.stop(*IMMEDIATE)
        await self.postgres.start()


async def execute(url: str, statement: str) -> None:
    """Run one statement, or several without parameters."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    """Read rows on a connection of our own."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def delete_queues(url: str, names: Iterable[str]) -> None:
    """Remove queues with what lies in them."""
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)


def _remove_data(*folders: StateFolder) -> None:
    """PostgreSQL's data, which lies elsewhere where its user cannot enter ours."""
    for folder in folders:
        data = folder.notes().get("postgres_data")
        if data is not None and folder.path not in Path(data).parents:
            shutil.rmtree(Path(data).parent, ignore_errors=True)


async def _stop_node(starting: asyncio.Future[Node | None]) -> None:
    with suppress(Exception):
        node = await starting
        if node is not None:
            await asyncio.to_thread(node.stop)
