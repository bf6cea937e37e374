"""The migrations make exactly the tables that the code uses."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from orders.models import metadata


def _differences(connection: Connection) -> list[object]:
    options = {
        "include_schemas": True,
        "version_table_schema": "orders",
        "include_name": lambda name, kind, _: kind != "schema" or name == "orders",
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


async def test_a_migrated_schema_differs_from_the_models_in_nothing(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
