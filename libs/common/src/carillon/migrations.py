"""Running Alembic for one schema at a time: the ledger's, or a service's own."""

from __future__ import annotations

import re
from importlib.resources import as_file, files

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.errors import ConfigurationError
from carillon.settings import sqlalchemy_url

#: Taken while migrating, so that several processes may try at once. Any constant will do.
LOCK = 0x0CA_A111_0


def run_migrations(metadata: MetaData, partitions: re.Pattern[str] | None = None) -> None:
    """What each `env.py` calls: run the versions beside it on the connection that `migrate` opened.

    The environment sees `metadata.schema` and no other, so autogenerate never proposes to drop a neighbour's tables;
    nor does it see tables whose whole name fits `partitions`, which come and go by themselves.
    """
    schema = metadata.schema
    if schema is None:
        message = "the metadata names no schema; write MetaData(schema=...)"
        raise ValueError(message)

    def ours(name: str | None, kind: str, _: object) -> bool:
        if kind == "table" and partitions is not None and name is not None:
            return partitions.fullmatch(name) is None
        return name == schema if kind == "schema" else True

    connection = context.config.attributes.get("connection")
    if connection is None:
        message = "this environment needs the lock that `carillon migrate` holds; run that instead of alembic"
        raise ConfigurationError(message)
    connection.execute(text(f'create schema if not exists "{schema}"'))
    # A role with the schema's own name finds it first on its search path, and then Alembic calls it by no name.
    connection.execute(text("set local search_path to public"))
    connection.dialect.default_schema_name = "public"
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=schema,
        include_schemas=True,
        include_name=ours,
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate(database_url: str, *packages: str) -> None:
    """Bring the schemas of these migration packages up to date, in order, in one transaction each.

    `packages` are import names such as `backup.migrations`. A lock makes it safe to call from several processes.
    """
    engine = create_async_engine(sqlalchemy_url(database_url), connect_args={"timeout": 5})
    try:
        async with engine.connect() as connection:
            await connection.execute(text("set lock_timeout = '60s'"))
            await connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK})
            await connection.commit()
            for package in packages:
                await connection.run_sync(_upgrade, package)
                await connection.commit()
            await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": LOCK})
            await connection.commit()
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, package: str) -> None:
    with as_file(files(package)) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
