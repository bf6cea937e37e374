"""The submitting client: `python -m chaos.client`, with its plan in CHAOS_PLAN. It writes down what it asks and hears.

It submits at a steady rate whatever the answers are, until SIGTERM or until it has submitted `most`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import orjson
import uvloop
from pydantic import BaseModel

import carillon
from carillon.ids import new_id
from carillon.tasks import Tasks
from chaos import mutations
from chaos.domain import WORKING, tasks_of
from chaos.journal import SyncedJournal
from chaos.settings import ChaosSettings

#: An answer that takes longer is none.
ANSWER_SECONDS = 20.0
#: Submits that may wait for an answer at once; beyond that the client waits itself.
MOST_OPEN = 1_000
TICK_SECONDS = 0.02
#: How often a request that may have been accepted is sent again with its key.
TRIES = 40
AGAIN_SECONDS = 0.25
SERVER_ERROR = 500
ACCEPTED = 202


class Plan(BaseModel):
    """What to submit. Shares are of all submits; what is left is short rings."""

    seed: int
    #: Submits per second.
    rate: float
    most: int = 1_000_000
    domains: tuple[str, ...] = WORKING
    short_milliseconds: tuple[int, int] = (5, 50)
    long_milliseconds: tuple[int, int] = (300, 800)
    long: float = 0.05
    chime: float = 0.05
    crack: float = 0.01
    falter: float = 0.02
    #: Expire at once, so that they end cancelled.
    expired: float = 0.005
    #: Where the gateway is; submits go through it where it is set.
    gateway: str = ""
    key: str = ""


class Work(BaseModel):
    """One run to be submitted."""

    ticket: str
    domain: str
    function: str = "ring"
    milliseconds: int = 20
    #: The run's id, where the ticket is none.
    run: str | None = None
    expires_at: datetime | None = None
    #: Arguments beside the usual.
    more: dict[str, Any] = {}

    @property
    def task(self) -> str:
        """The task's whole name."""
        return f"{self.domain}.{self.function}"

    @property
    def args(self) -> dict[str, Any]:
        """Its arguments."""
        return {"ticket": self.ticket, "milliseconds": self.milliseconds, **self.more}


def planned(plan: Plan, dice: random.Random) -> Work:
    """The next run, by lot."""
    lot = dice.random()
    function = "ring"
    milliseconds = dice.randint(*plan.short_milliseconds)
    for share, name in ((plan.chime, "chime"), (plan.crack, "crack"), (plan.falter, "falter")):
        if 0 <= lot < share:
            function = name
        lot -= share
    if 0 <= lot < plan.long:
        milliseconds = dice.randint(*plan.long_milliseconds)
    expires = datetime.now(UTC) + timedelta(milliseconds=1) if dice.random() < plan.expired else None
    return Work(
        ticket=str(new_id()),
        domain=dice.choice(plan.domains),
        function=function,
        milliseconds=milliseconds,
        expires_at=expires,
    )


class OverPython:
    """Submits as a Python program does. The run's id is the ticket, unless the work names another."""

    def __init__(self, domains: dict[str, Tasks], journal: SyncedJournal) -> None:
        self._domains = domains
        self._journal = journal

    async def submit(self, work: Work) -> None:
        """One run, asked for once."""
        run = work.run or work.ticket
        await self._journal.put("submit", ticket=work.ticket, task=work.task, run=run)
        labels: dict[str, Any] = {} if work.expires_at is None else {"expires_at": work.expires_at}
        kicker = self._domains[work.domain].declared[work.task].kicker().with_task_id(run).with_labels(**labels)
        status, why = "accepted", ""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await kicker.kiq(**work.args)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing is certain
            status, why = "unknown", repr(error)[:200]
        await self._journal.put("answer", ticket=work.ticket, status=status, run=run, why=why)


class OverHttp:
    """Submits through the gateway, again and again with the same key until there is an answer to rely on."""

    def __init__(self, http: httpx2.AsyncClient, journal: SyncedJournal) -> None:
        self._http = http
        self._journal = journal

    async def submit(self, work: Work) -> None:
        """One run, asked for until it is answered; those that were to kill the gateway, once more after that."""
        await self._journal.put("submit", ticket=work.ticket, task=work.task, run=None)
        for _ in range(TRIES):
            if await self._ask(work):
                break
            await asyncio.sleep(AGAIN_SECONDS)
        if work.ticket.startswith("crash."):
            await asyncio.sleep(AGAIN_SECONDS)
            await self._ask(work)

    async def _ask(self, work: Work) -> bool:
        body: dict[str, Any] = {"task": work.task, "args": work.args}
        if work.expires_at is not None:
            body["expires_at"] = (datetime.now(UTC) + timedelta(milliseconds=5)).isoformat()
        status, run, why = "unknown", None, ""
        try:
            answer = await self._http.post("/api/v1/tasks", json=body, headers={"Idempotency-Key": work.ticket})
        except (httpx2.HTTPError, OSError) as error:
            why = repr(error)[:200]
        else:
            why = str(answer.status_code)
            if answer.status_code == ACCEPTED:
                status, run = "accepted", answer.json()["id"]
            elif answer.status_code < SERVER_ERROR:
                status, why = "refused", answer.text[:200]
        await self._journal.put("answer", ticket=work.ticket, status=status, run=run, why=why)
        return status != "unknown"


async def drive(plan: Plan, submit: Callable[[Work], Awaitable[None]], stop: asyncio.Event) -> None:
    """Submit at the planned rate until told to stop, then wait for the answers."""
    dice = random.Random(plan.seed)
    open_: set[asyncio.Task[None]] = set()
    began, done = time.monotonic(), 0
    while not stop.is_set() and done < plan.most:
        due = min(plan.most, int((time.monotonic() - began) * plan.rate))
        while done < due and len(open_) < MOST_OPEN:
            task = asyncio.ensure_future(submit(planned(plan, dice)))
            open_.add(task)
            task.add_done_callback(open_.discard)
            done += 1
        await asyncio.sleep(TICK_SECONDS)
    if open_:
        await asyncio.wait(open_, timeout=ANSWER_SECONDS + 5)


@asynccontextmanager
async def way(plan: Plan, journal: SyncedJournal) -> AsyncIterator[Callable[[Work], Awaitable[None]]]:
    """How submits travel."""
    async with AsyncExitStack() as open_:
        if plan.gateway:
            headers = {"Authorization": f"Bearer {plan.key}"}
            limits = httpx2.Limits(max_connections=50, max_keepalive_connections=20)
            client = httpx2.AsyncClient(base_url=plan.gateway, headers=headers, timeout=ANSWER_SECONDS, limits=limits)
            yield OverHttp(await open_.enter_async_context(client), journal).submit
        else:
            domains = {domain: tasks_of(domain) for domain in plan.domains}
            await open_.enter_async_context(carillon.connect(*domains.values(), name="chaos client"))
            yield OverPython(domains, journal).submit


async def main() -> None:
    """Connect, and drive until SIGTERM."""
    settings = ChaosSettings()
    mutations.apply(settings)
    plan = Plan.model_validate(orjson.loads(os.environ["CHAOS_PLAN"]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal = SyncedJournal(settings.clients)
    async with way(plan, journal) as submit:
        while not settings.start_signal.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(TICK_SECONDS)
        await drive(plan, submit, stop)


if __name__ == "__main__":
    uvloop.run(main())
