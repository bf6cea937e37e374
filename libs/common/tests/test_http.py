"""The operations surface of every process: health, metrics, AsyncAPI, and a port that is taken."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from litestar import get
from pydantic import SecretStr
from shop import Shop, shop_service

from carillon.errors import ConfigurationError
from carillon.http import OperationsServer, Web
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.service import Service
from carillon.settings import PlatformSettings
from carillon.telemetry.metrics import Metrics
from carillon.testing import eventually, running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def served(platform: Platform, web: Web | None = None, **options) -> AsyncIterator[httpx2.AsyncClient]:
    port, stop = free_port(), asyncio.Event()
    server = OperationsServer("shop", platform, Metrics(), ("127.0.0.1", port), web or Web(routes=()), **options)
    serving = asyncio.create_task(server.run(stop))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        await eventually(lambda: answers(client))
        try:
            yield client
        finally:
            stop.set()
            await asyncio.wait_for(serving, 10)


async def answers(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/health/live")).status_code == 200
    except httpx2.TransportError:
        return False


async def test_a_process_that_can_work_is_live_and_ready(platform):
    async with served(platform) as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "missing": []})


async def test_a_process_that_is_not_ready_says_what_is_missing(platform):
    async with served(platform, probes=[lambda: None, lambda: "the clock is not wound; wind it"]) as client:
        ready = await client.get("/health/ready")

    assert ready.status_code == 503
    assert ready.json() == {"status": "not ready", "missing": ["the clock is not wound; wind it"]}


async def test_without_its_database_a_process_lives_on_and_is_not_ready(settings, new_database, test_servers):
    url = new_database()
    await migrate(url, "carillon.ledger.migrations")
    lost = settings.model_copy(update={"database_url": SecretStr(url), "rabbit_url": None})
    async with Platform(lost, name="test") as platform, served(platform) as client:
        before = await client.get("/health/ready")
        await asyncio.to_thread(test_servers.drop_database, url)
        after, live = await client.get("/health/ready"), await client.get("/health/live")

    assert (before.status_code, after.status_code, live.status_code) == (200, 503, 200)
    (sentence,) = after.json()["missing"]
    assert sentence.startswith("PostgreSQL does not answer (")
    assert sentence.endswith("check DATABASE_URL and the server")


async def test_metrics_are_served_as_prometheus_reads_them(platform):
    async with served(platform) as client:
        scraped = await client.get("/metrics")

    assert scraped.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE taskiq_tasks_total counter" in scraped.text
    assert "# TYPE taskiq_task_duration_seconds histogram" in scraped.text
    assert "# TYPE taskiq_tasks_active gauge" in scraped.text
    assert "process_resident_memory_bytes" in scraped.text


async def test_asyncapi_says_what_the_domain_hears_and_says(platform):
    async with served(platform) as client:
        unknown = (await client.get("/asyncapi.json")).json()
        async with running(shop_service(platform.settings, Shop()), platform):
            known = await client.get("/asyncapi.json")

    assert unknown == {}
    assert known.headers["content-type"] == "application/json"
    assert known.json()["asyncapi"].startswith("3.")
    text = json.dumps(known.json())
    assert "shop.order_placed.v1" in text
    assert "shop.order_packed.v1" in text


async def test_a_service_s_own_route_wins_over_that_of_every_process(platform):
    @get("/health/live")
    async def own() -> str:
        return "own"

    async with served(platform, Web(routes=[own])) as client:
        live, ready = await client.get("/health/live"), await client.get("/health/ready")

    assert (live.text, ready.status_code) == ("own", 200)


async def test_a_port_that_is_taken_is_named_with_the_variable_that_moves_it(platform):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        service = Service(name="shop", settings=platform.settings, port=port)

        with pytest.raises(ConfigurationError) as refused:
            await asyncio.wait_for(service.run(asyncio.Event()), 15)

    assert str(refused.value) == f"shop cannot listen on 127.0.0.1:{port} (Address already in use); set SHOP_PORT"


async def test_an_address_that_is_not_ours_is_refused_in_words(platform):
    server = OperationsServer("shop", platform, Metrics(), ("192.0.2.1", 8080), Web(routes=()))

    with pytest.raises(ConfigurationError, match=r"shop cannot listen on 192.0.2.1:8080 \(Cannot assign"):
        await server.run(asyncio.Event())


@pytest.fixture
def settings(ledger_url: str, tmp_path) -> PlatformSettings:
    return PlatformSettings(
        database_url=SecretStr(ledger_url), storage_url=str(tmp_path), rabbit_url=None, rabbit_host=None
    )
