"""Which of several schedulers leads: the one whose session holds an advisory lock of PostgreSQL.

The lock lives as long as its session, so a leader that dies hands over at once. One that is cut off or stopped is
dropped by the server after `SILENCE_SECONDS` without a word from it. The lock saves work; that nothing fires twice
is guaranteed by the row locks, the epoch and the unique fire time of a decision.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import asyncpg
import structlog

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = structlog.get_logger(__name__)

#: Any number that nothing else on this database locks.
KEY = 0x0CA_211_0C
#: A healthy server answers at once; a leader must not believe in itself for longer without an answer.
ANSWER_SECONDS = 2.0
#: The leader speaks at least once a second.
SILENCE_SECONDS = 8
#: Changes of leader that are kept.
MOST_EPOCHS = 1_000
APPLICATION = "carillon scheduler leadership"

#: What the server is asked to do about a session it no longer hears from.
_SESSION = {
    "application_name": APPLICATION,
    "idle_session_timeout": f"{SILENCE_SECONDS}s",
    "tcp_keepalives_idle": "2",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": f"{SILENCE_SECONDS}s",
}
_ENTER = "insert into scheduler.leaders (host, pid) values ($1, $2) returning epoch"
_FORGET = "delete from scheduler.leaders where epoch <= $1"


class Leadership:
    """This process's part in leading. `epoch` is None whenever it does not lead, as far as it can know."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None
        self.epoch: int | None = None

    async def hold(self) -> int | None:
        """Prove that this process leads, or try to; returns its epoch, or None while another one leads.

        Raises what asyncpg raises when PostgreSQL does not answer; then this process does not lead.
        """
        try:
            connection = self._connection or await self._connect()
            if self.epoch is None:
                self.epoch = await self._acquire(connection)
            else:
                await connection.execute("select 1", timeout=ANSWER_SECONDS)
        except BaseException:
            self._drop()
            raise
        return self.epoch

    async def resign(self) -> None:
        """Let another process lead now."""
        connection, self._connection, self.epoch = self._connection, None, None
        if connection is not None:
            try:
                await connection.close(timeout=ANSWER_SECONDS)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    async def _connect(self) -> Connection:
        connection: Connection = await asyncpg.connect(
            self._dsn, timeout=ANSWER_SECONDS, command_timeout=ANSWER_SECONDS, server_settings=_SESSION
        )
        connection.add_termination_listener(self._lost)
        self._connection = connection
        return connection

    @staticmethod
    async def _acquire(connection: Connection) -> int | None:
        if not await connection.fetchval("select pg_try_advisory_lock($1)", KEY):
            return None
        epoch: int = await connection.fetchval(_ENTER, socket.gethostname(), os.getpid())
        await connection.execute(_FORGET, epoch - MOST_EPOCHS)
        log.info("leading", epoch=epoch)
        return epoch

    def _lost(self, connection: object) -> None:
        if connection is self._connection:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if self.epoch is not None:
            log.warning("no longer leading: PostgreSQL ended the session or does not answer", epoch=self.epoch)
        self.epoch = None
        if connection is not None:
            connection.terminate()
