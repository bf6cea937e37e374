"""The embedded PostgreSQL and Valkey, started for real in a folder of the test."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis

from carillon.embedded import process
from carillon.embedded.errors import EmbeddedServerError, explain
from carillon.embedded.folder import StateFolder
from carillon.embedded.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 20.0


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded") / "state"


@pytest.fixture(autouse=True)
def elsewhere_is_tidied(home: Path) -> Iterator[None]:
    """Run by root below a closed folder, data lies outside of it."""
    yield
    if not home.is_dir():
        return
    data = Path(StateFolder(home).notes().get("postgres_data", home / "postgres"))
    if home not in data.parents:
        subprocess.run(["/bin/rm", "-rf", "--", data.parent], check=True)


async def test_both_servers_answer_and_the_database_is_there(home: Path) -> None:
    async with Servers(home) as servers:
        connection = await asyncpg.connect(servers.database_url)
        database = await connection.fetchval("select current_database()")
        await connection.close()
        client = Redis.from_url(servers.redis_url)
        pong = await client.ping()
        await client.aclose()

    assert (database, pong) == ("carillon", True)


async def test_the_second_start_finds_the_data_on_the_same_ports(home: Path) -> None:
    async with Servers(home) as servers:
        first = (servers.database_url, servers.redis_url)
        connection = await asyncpg.connect(servers.database_url)
        await connection.execute("create table bells as select 'ding' as note")
        await connection.close()

    async with Servers(home) as servers:
        second = (servers.database_url, servers.redis_url)
        connection = await asyncpg.connect(servers.database_url)
        note = await connection.fetchval("select note from bells")
        await connection.close()

    assert note == "ding"
    assert second == first


async def test_a_taken_port_is_replaced_by_a_free_one(home: Path) -> None:
    async with Servers(home, valkey=False) as servers:
        first = servers.database_url
    port = int(first.rsplit(":", 1)[1].split("/")[0])

    with socket.create_server(("127.0.0.1", port)):
        async with Servers(home, valkey=False) as servers:
            second = servers.database_url

    assert second != first


async def test_a_folder_in_use_says_which_process_holds_it(home: Path) -> None:
    async with Servers(home, postgres=False):
        with pytest.raises(EmbeddedServerError, match=f"process {os.getpid()}.*CARILLON_HOME"):
            await Servers(home, postgres=False).__aenter__()


async def test_the_servers_of_a_killed_process_end_and_their_data_is_found(home: Path) -> None:
    pids = kill_a_holder_of(home)

    assert eventually(lambda: not any(process.command_line(pid) for pid in pids))
    async with Servers(home, valkey=False) as servers:
        connection = await asyncpg.connect(servers.database_url)
        note = await connection.fetchval("select note from bells")
        await connection.close()
    assert note == "ding"


def kill_a_holder_of(home: Path) -> list[int]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(home)], stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stderr is not None
        pids = [int(pid) for pid in holder.stderr.readline().split()]
        holder.send_signal(signal.SIGKILL)
    return pids


HOLDER = """
import asyncio, sys, pathlib, asyncpg
from carillon.embedded.servers import Servers

async def hold():
    async with Servers(pathlib.Path(sys.argv[1])) as servers:
        connection = await asyncpg.connect(servers.database_url)
        await connection.execute("create table bells as select 'ding' as note")
        await connection.close()
        print(servers._postgres.child.pid, servers._valkey.child.pid, file=sys.stderr, flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


def test_a_leftover_is_ended_only_when_it_carries_our_mark() -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", "mark-of-ours"]) as leftover:
        assert eventually(lambda: "mark-of-ours" in process.command_line(leftover.pid))

        others = process.end_leftover(leftover.pid, "mark-of-others", (signal.SIGTERM, 5.0))
        still_alive = leftover.poll() is None
        process.end_leftover(leftover.pid, "mark-of-ours", (signal.SIGTERM, 5.0))

    assert (others, still_alive) == (False, True)
    assert leftover.returncode == -signal.SIGTERM


async def test_a_server_that_dies_is_noticed(home: Path) -> None:
    async with Servers(home, postgres=False) as servers:
        pid = int(StateFolder(home).notes()["valkey_pid"])

        os.kill(pid, signal.SIGKILL)

        assert eventually(lambda: servers.ended() == ["Valkey"])


async def test_no_password_is_in_a_command_line_or_a_log_and_its_file_is_private(home: Path) -> None:
    async with Servers(home):
        passwords = texts(home, "*.password")
        lines = [process.command_line(running.pid) for running in psutil.process_iter()]

    logs = texts(home, "logs/*")
    assert not [password for password in passwords for text in (*lines, *logs) if password in text]
    assert modes(home, "*.password") == {0o600}


def texts(folder: Path, pattern: str) -> list[str]:
    return [path.read_text() for path in folder.glob(pattern)]


def modes(folder: Path, pattern: str) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.glob(pattern)}


async def test_data_of_another_major_version_is_left_alone(home: Path) -> None:
    async with Servers(home, valkey=False):
        pass
    version = Path(StateFolder(home).notes()["postgres_data"]) / "PG_VERSION"
    version.write_text("17\n")

    with pytest.raises(EmbeddedServerError, match=r"holds data of PostgreSQL 17.*pg_upgrade"):
        await Servers(home, valkey=False).__aenter__()


async def test_a_missing_password_file_is_said_and_a_wrong_one_too(home: Path) -> None:
    async with Servers(home, valkey=False):
        pass
    (home / "postgres.password").write_text("wrong")

    with pytest.raises(EmbeddedServerError, match="does not fit the data"):
        await Servers(home, valkey=False).__aenter__()
    (home / "postgres.password").unlink()
    with pytest.raises(EmbeddedServerError, match=r"postgres\.password is missing"):
        await Servers(home, valkey=False).__aenter__()


def test_a_full_disk_is_one_sentence(home: Path) -> None:
    folder = StateFolder(home, least_free_bytes=2**60)

    with pytest.raises(EmbeddedServerError, match=r"is full: \d+ MiB are free"):
        folder.__enter__()


def test_a_file_in_the_place_of_the_folder_is_one_sentence(home: Path) -> None:
    home.write_text("")

    with pytest.raises(EmbeddedServerError, match="is not a folder"):
        StateFolder(home).__enter__()


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("FATAL:  could not write: No space left on device", "disk is full"),
        ("LOG:  could not bind: Address already in use", "another program uses its port"),
        (
            "postgres: error while loading shared libraries: libz.so.1: cannot open",
            "needs the system library libz.so.1",
        ),
        ("FATAL:  something new", "did not start: FATAL:  something new"),
        ("", "it said nothing"),
    ],
)
async def test_the_end_of_a_log_becomes_a_sentence(log: str, sentence: str, home: Path) -> None:
    child = process.start("PostgreSQL", ["/bin/cat"], log=home / "log", stdin=log.encode())
    assert eventually(lambda: not child.alive)

    error = explain(child, "PostgreSQL", home / "log")

    assert sentence in str(error)
