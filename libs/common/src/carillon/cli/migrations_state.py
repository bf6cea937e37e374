"""Which schemas are behind the code that is installed here."""

from __future__ import annotations

import asyncio
from importlib.resources import as_file, files

import asyncpg
from alembic.config import Config
from alembic.script import ScriptDirectory

from carillon.cli.migrate import packages

CONNECT_SECONDS = 5.0
#: The ledger's package is `carillon.ledger.migrations`, its schema `carillon`; a service's word is both.
Schema = str


async def missing_migrations(database_url: str) -> list[Schema]:
    """The schemas that `carillon migrate` would change."""
    wanted = await asyncio.to_thread(_heads)
    connection = await asyncpg.connect(database_url, timeout=CONNECT_SECONDS)
    try:
        return [schema for schema, head in wanted.items() if await _version(connection, schema) != head]
    finally:
        await connection.close()


def _heads() -> dict[Schema, str | None]:
    return {package.partition(".")[0]: _head(package) for package in packages()}


def _head(package: str) -> str | None:
    with as_file(files(package)) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        return ScriptDirectory.from_config(config).get_current_head()


async def _version(connection: asyncpg.Connection[asyncpg.Record], schema: Schema) -> str | None:
    try:
        found: str | None = await connection.fetchval(f'select version_num from "{schema}".alembic_version')
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    return found
