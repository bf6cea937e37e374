"""Every schema of the workspace: its migrations make what its tables declare, and see no other schema."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url


def packages() -> Iterator[str]:
    yield "carillon.ledger.migrations"
    for service in sorted(entry_points(group="carillon.services")):
        package = f"{service.module.partition('.')[0]}.migrations"
        if find_spec(package) is not None:
            yield package


PACKAGES = list(packages())


@pytest.fixture(scope="module")
def migrated_url(database_url: str) -> str:
    asyncio.run(migrate(database_url, *PACKAGES))
    return database_url


def check(connection: Connection, package: str) -> None:
    """Raise when autogenerate, asked as a developer asks it, has something to propose."""
    config = Config(stdout=SimpleNamespace(write=lambda _: None, flush=lambda: None))
    config.set_main_option("script_location", str(files(package)))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.check(config)


def schema_of(package: str) -> str:
    return "carillon" if package.startswith("carillon.") else package.partition(".")[0]


async def proposals(url: str, package: str, *first: str, search_path: str = "public") -> str:
    """What autogenerate proposes after some statements, which are rolled back."""
    engine = create_async_engine(sqlalchemy_url(url), connect_args={"server_settings": {"search_path": search_path}})
    try:
        async with engine.connect() as connection:
            for statement in first:
                await connection.execute(text(statement))
            await connection.run_sync(check, package)
            return ""
    except CommandError as error:
        return str(error)
    finally:
        await engine.dispose()


def test_every_service_with_tables_is_looked_at():
    owners = {package.partition(".")[0] for package in PACKAGES}

    assert owners >= {"carillon", "analytics", "backup", "gateway", "notifications", "reports", "scheduler"}


@pytest.mark.parametrize("package", PACKAGES)
async def test_the_migrations_make_what_the_tables_declare_and_see_no_neighbour(migrated_url, package):
    assert await proposals(migrated_url, package) == ""


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_role_that_finds_the_schema_without_its_name_sees_the_same(migrated_url, package):
    assert await proposals(migrated_url, package, search_path=f"{schema_of(package)}, public") == ""


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_table_that_nobody_declared_is_noticed_in_its_own_schema_only(migrated_url, package):
    own = schema_of(package)
    others = [name for name in ("carillon", "backup", "public") if name != own]

    elsewhere = await proposals(migrated_url, package, *(f'create table "{name}".stray (id int)' for name in others))
    here = await proposals(migrated_url, package, f'create table "{own}".stray (id int)')

    assert elsewhere == ""
    assert "stray" in here


async def test_all_schemas_migrate_again_and_together(migrated_url):
    await asyncio.gather(migrate(migrated_url, *PACKAGES), migrate(migrated_url, *reversed(PACKAGES)))
