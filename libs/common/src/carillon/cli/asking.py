"""Asking PostgreSQL itself from the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.cli.settings import CommandSettings, platform_settings
from carillon.errors import PlatformUnavailableError
from carillon.settings import sqlalchemy_url

CONNECT_SECONDS = 5
#: Nothing that is asked takes longer, in seconds.
READ_SECONDS = 30


@asynccontextmanager
async def asking(what: str) -> AsyncIterator[AsyncEngine]:
    """The ledger; raises `PlatformUnavailableError`, which says that `what` cannot be read and what to check."""
    url = platform_settings(CommandSettings()).database_url.get_secret_value()
    engine = create_async_engine(
        sqlalchemy_url(url), connect_args={"timeout": CONNECT_SECONDS, "command_timeout": READ_SECONDS}
    )
    try:
        yield engine
    except ProgrammingError as error:
        message = f"The database has no {what} that this version can read; run `carillon migrate`."
        raise PlatformUnavailableError(message) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error).splitlines()[0]
        message = f"The {what} could not be read ({reason}); check DATABASE_URL and the server."
        raise PlatformUnavailableError(message) from error
    finally:
        await engine.dispose()
