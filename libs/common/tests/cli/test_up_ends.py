"""How `carillon up` ends, and what the next start finds."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request

import asyncpg
import psutil
import pytest

from carillon.embedded.addresses import noted_addresses

pytestmark = pytest.mark.long(seconds=110)


def test_ctrl_c_leaves_no_process_and_the_next_start_finds_the_data(start, place) -> None:
    with start() as up:
        assert place.command("tour").returncode == 0
        processes = up.descendants()

        code = up.end(signal.SIGINT)

        assert code == 0
        assert not psutil.wait_procs(processes, timeout=5)[1]
        assert "stopped; the data stays" in up.text

    with start() as up:
        found = runs_of(place)
        assert up.end(signal.SIGTERM) == 0

    assert "reports.report_operations" in {run["task"] for run in found}


def test_nothing_outlives_a_killed_up_and_the_next_start_works(start, place) -> None:
    with start() as up:
        processes = up.descendants()

        up.end(signal.SIGKILL)

        assert not psutil.wait_procs(processes, timeout=40)[1]

    with start() as up:
        assert runs_of(place)


def test_a_killed_postgres_is_started_again_and_the_services_go_on(start, place) -> None:
    with start() as up:
        up.child("bin/postgres").kill()

        up.said("PostgreSQL died, starting it again")
        up.has("bin/postgres")
        toured = place.command("tour")

    assert toured.returncode == 0, toured.stderr


def test_migrating_several_times_at_once_is_safe(start, place) -> None:
    with start():
        env = noted_addresses(place.home)

        ends = asyncio.run(several(3, place, env))
        tables = asyncio.run(count_tables(env["DATABASE_URL"]))

    assert ends == [0, 0, 0]
    assert tables > 20


async def several(times: int, place, env: dict[str, str]) -> list[int]:
    commands = [asyncio.to_thread(place.command, "migrate", **env) for _ in range(times)]
    return [done.returncode for done in await asyncio.gather(*commands)]


async def count_tables(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(
            "select count(*) from information_schema.tables where table_schema !~ '^(pg_|information_schema)'"
        )
    finally:
        await connection.close()


def runs_of(place) -> list[dict[str, str]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{place.port}/api/v1/runs?limit=200", timeout=10) as answer:
        return json.load(answer)["runs"]
