"""Brings every table up to date: the ledger's first, then each installed service's own."""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy.exc import SQLAlchemyError

from carillon.cli import installed
from carillon.cli.exits import in_one_sentence
from carillon.errors import PlatformUnavailableError
from carillon.migrations import migrate
from carillon.settings import PlatformSettings

LEDGER = "carillon.ledger.migrations"


def packages() -> list[str]:
    """The migration packages, in the order in which they have to run."""
    services = (installed.load(name) for name in installed.names())
    return [LEDGER, *(service.migrations for service in services if service.migrations)]


def run() -> int:
    """Migrate; 0 when everything is up to date."""
    return in_one_sentence(lambda: asyncio.run(_migrate()))


async def _migrate() -> int:
    url = PlatformSettings().database_url.get_secret_value()
    try:
        await migrate(url, *packages())
    except (OSError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        message = f"PostgreSQL could not be migrated ({reason}); check DATABASE_URL and the server."
        raise PlatformUnavailableError(message) from error
    return 0


if __name__ == "__main__":
    sys.exit(run())
