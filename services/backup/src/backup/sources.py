"""What can be backed up: PostgreSQL databases, known by an id and never by what a caller sends."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg

from backup.errors import SourceRefusedError, SourceUnreachableError
from carillon.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Record

SOURCE_ID = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")
#: First letters of every scratch database. A source may not begin so: leftovers with this name are dropped.
SCRATCH_PREFIX = "carillon_scratch_"
SCHEMES = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})
CONNECT_SECONDS = 10
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
OUTAGES = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
)


@dataclass(frozen=True)
class Source:
    """One PostgreSQL database. Its parts travel apart, because a libpq connection string can be injected into."""

    id: str
    host: str
    port: int
    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    sslmode: SslMode | None = None

    def __str__(self) -> str:
        """How people are told which database is meant, without its password."""
        return f"source {self.id} ({self.user}@{self.host}:{self.port}/{self.database})"

    @asynccontextmanager
    async def connection(self, database: str | None = None) -> AsyncIterator[Connection[Record]]:
        """Connect to the source, or to another database of its server.

        Raises SourceRefusedError or SourceUnreachableError, also for what happens on the connection later.
        """
        whom = f"{self}" if database is None else f"{self}, database {database}"
        try:
            connection = await self._connect(database or self.database)
        except REFUSALS as error:
            raise _refused(whom, error) from error
        except (OSError, *OUTAGES) as error:
            raise _unreachable(whom, error) from error
        try:
            yield connection
        except REFUSALS as error:
            raise _refused(whom, error) from error
        except OUTAGES as error:
            raise _unreachable(whom, error) from error
        finally:
            await _close(connection)

    async def _connect(self, database: str) -> Connection[Record]:
        return await asyncpg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            ssl=self.sslmode,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": "carillon-backup"},
        )


async def _close(connection: Connection[Record]) -> None:
    """Part politely, but not for longer than a connection attempt may take."""
    try:
        await connection.close(timeout=CONNECT_SECONDS)
    except (OSError, *OUTAGES, asyncpg.InterfaceError):
        connection.terminate()


def _refused(whom: str, error: Exception) -> SourceRefusedError:
    return SourceRefusedError(
        f"{whom} refused: {error}. Correct its connection string, or grant its user what it lacks"
    )


def _unreachable(whom: str, error: Exception) -> SourceUnreachableError:
    return SourceUnreachableError(f"{whom} does not answer: {error or type(error).__name__}. Is its server up?")


def parse_source(source_id: str, url: str) -> Source:
    """Read a source from its id and `postgresql://user:password@host:port/database?sslmode=...`.

    Raises ConfigurationError, whose sentence never repeats the URL: it may hold a password.
    """
    if not SOURCE_ID.match(source_id):
        message = f"{source_id!r} cannot be the id of a source: use lower-case letters, digits, _ and -, at most 63"
        raise ConfigurationError(message)
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError as error:
        raise _unreadable(source_id, "it is not a URL") from error
    options = dict(parse_qsl(parts.query))
    host = options.pop("host", None) or parts.hostname
    sslmode = options.pop("sslmode", None)
    if sslmode is not None and sslmode not in get_args(SslMode):
        raise _unreadable(source_id, f"sslmode must be one of {', '.join(get_args(SslMode))}")
    database, user = unquote(parts.path.removeprefix("/")), unquote(parts.username or "")
    password = None if parts.password is None else unquote(parts.password)
    _refuse_unusable(source_id, scheme=parts.scheme, options=options, database=database, password=password or "")
    if not host or not user or not database:
        raise _unreadable(source_id, "it must name a user, a host and a database")
    return Source(source_id, host, port, user, database, password, cast("SslMode | None", sslmode))


def _refuse_unusable(source_id: str, *, scheme: str, options: dict[str, str], database: str, password: str) -> None:
    if scheme not in SCHEMES:
        raise _unreadable(source_id, "it must begin with postgresql://")
    if options:
        raise _unreadable(source_id, f"only host and sslmode may follow the ?, not {', '.join(sorted(options))}")
    if database.startswith(SCRATCH_PREFIX):
        raise _unreadable(source_id, f"databases named {SCRATCH_PREFIX}... are scratch copies, which backup drops")
    if any(sign in password for sign in "\r\n\0"):
        raise _unreadable(source_id, "its password holds a line break, which no password file can carry")


def _unreadable(source_id: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"the connection string of source {source_id} cannot be used: {why}")
