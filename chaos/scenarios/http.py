"""Faults of the gateway, and of clients that ask it twice."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx2

from carillon.embedded.process import free_port
from chaos.client import OverHttp, Work
from chaos.domain import WORKING
from chaos.journal import SyncedJournal
from chaos.mutations import GATEWAY_POINTS
from chaos.scenarios.scenario import BOTH, POSTGRES, Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.stage import Stage

KEYS = 10
POSTS = 50


@dataclass(frozen=True)
class Door:
    """A running gateway."""

    url: str
    key: str

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client that has the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        limits = httpx2.Limits(max_connections=POSTS)
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20, limits=limits) as client:
            yield client


async def gateway(stage: Stage, **env: str) -> Door:
    """Start a gateway on a port that it keeps when it is started again; returns when it answers."""
    port, file = free_port(), stage.folder / "key"
    stage.crew.add(
        "gateway", "-m", "chaos.gateway", ready="", GATEWAY_PORT=str(port), GATEWAY_KEY_FILE=str(file), **env
    )
    url = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        async with httpx2.AsyncClient(timeout=2) as client:
            try:
                return (await client.get(f"{url}/health/live")).status_code == httpx2.codes.OK
            except httpx2.HTTPError:
                return False

    stage.expect(await stage.until_async(answers, 30), "the gateway did not start")
    return Door(url, file.read_text().strip())


async def kill_gateway(stage: Stage) -> None:
    """The gateway dies between commit and answer, and right after the answer; clients retry with the same key."""
    door = await gateway(stage, CHAOS_CRASHES="1")
    stage.workers()
    async with (
        stage.under_load(gateway=door.url, key=door.key, rate=stage.profile.rate / 2),
        door.client() as client,
    ):
        submit = OverHttp(client, SyncedJournal(stage.settings.clients)).submit
        for _ in range(max(2, stage.profile.crashes)):
            for point in GATEWAY_POINTS:
                # It comes back when the gateway has, which answered the same key before.
                await submit(Work(ticket=f"crash.{point}.{uuid4().hex}", domain="bells"))
                await asyncio.sleep(stage.profile.usual / 6)
    for point in GATEWAY_POINTS:
        killed = sum(1 for line in stage.tallied("killed") if line["point"] == point)
        stage.faults[f"gateway killed {point.replace('_', ' the ')}"] = killed


async def post_one_key_at_once(stage: Stage) -> None:
    """Many posts at once with one key are one run; the same key with another body is refused."""
    door = await gateway(stage)
    stage.workers()
    await stage.crew.ready()
    journal = SyncedJournal(stage.settings.clients)
    async with door.client() as client:
        for _ in range(KEYS):
            await _post_one_key(stage, client, journal)
    await stage.quiet()


async def _post_one_key(stage: Stage, client: httpx2.AsyncClient, journal: SyncedJournal) -> None:
    work = Work(ticket=uuid4().hex, domain=stage.dice.choice(WORKING))
    headers = {"Idempotency-Key": work.ticket}
    body = {"task": work.task, "args": work.args}
    await journal.put("submit", ticket=work.ticket, task=work.task, run=None)
    answers = await asyncio.gather(
        *(client.post("/api/v1/tasks", json=body, headers=headers) for _ in range(POSTS)), return_exceptions=False
    )
    made = 0
    for answer in answers:
        accepted = answer.status_code == httpx2.codes.ACCEPTED
        run = answer.json()["id"] if accepted else None
        made += accepted and answer.json()["created"]
        stage.expect(accepted or answer.status_code == httpx2.codes.CONFLICT, f"answered {answer.status_code}")
        await journal.put("answer", ticket=work.ticket, status="accepted" if accepted else "unknown", run=run)
    stage.expect(made == 1, f"{made} of {POSTS} posts with one key say that they made the run")
    stage.faults["posts with a key in use"] += len(answers) - 1
    other = await client.post("/api/v1/tasks", json={**body, "args": {**work.args, "milliseconds": 1}}, headers=headers)
    stage.expect(other.status_code == httpx2.codes.UNPROCESSABLE_ENTITY, f"another body got {other.status_code}")
    stage.faults["other bodies refused"] += other.status_code == httpx2.codes.UNPROCESSABLE_ENTITY


SCENARIOS = (
    Scenario("F31", "the gateway dies before and after its answer", kill_gateway, BOTH, quick=POSTGRES),
    Scenario("F32", "many posts with one key at once", post_one_key_at_once, BOTH, quick=POSTGRES),
)
