"""A person at the gateway's pages: a real gateway in a process, a small domain at work, a Chromium that tells all."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, Request, async_playwright, expect
from pydantic import SecretStr

from carillon import Limits, Retry, Run, Service, Tasks
from carillon.contracts import Event
from carillon.embedded.process import free_port
from carillon.errors import PermanentError
from carillon.ledger.schedules import Schedule
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from carillon.testing.blocking import wait_for
from carillon.testing.chromium import flags

#: What a browser would run if a page took a value for markup.
MARKUP = "<img src=x onerror='window.ran = true; alert(1)'>"
#: How long a person waits for a page, in milliseconds.
PATIENCE_MS = 15_000
expect.set_options(timeout=PATIENCE_MS)

tasks = Tasks("bells")


class BellRung(Event):
    """Said by bells once a bell rang, <img src=x onerror="window.ran = true"> and all."""

    type: ClassVar[str] = "bells.bell_rung.v1"
    subject_field: ClassVar[str] = "bell"

    bell: str


class Gate:
    """What a ringer waits at, so that a test can see a run before it ended, and what else a test decides."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        #: How far a clock is wound next; 1 is the end.
        self.turns: asyncio.Queue[float] = asyncio.Queue()
        #: Whether a bell can be tuned to no tone at all.
        self.mended = False


@tasks.task(default=True)
async def ring(bell: str, *, gate: Gate) -> BellRung:
    """Ring a bell once the gate is open.

    Safe to run twice: it only waits.
    """
    await gate.open.wait()
    return BellRung(bell=bell)


@tasks.task(retry=Retry(attempts=1))
async def crack(bell: str) -> None:
    """Break a bell.

    Safe to run twice: it never works.
    """
    raise PermanentError(f"the bell {bell} cracked")


@tasks.task(retry=Retry(attempts=1))
async def wind(clock: str, *, run: Run, gate: Gate) -> str:
    """Wind a clock as far as the test says, and report each turn.

    Safe to run twice: it only waits.
    """
    run.beat()
    while (turn := await gate.turns.get()) < 1:
        run.progress(turn, stage="winding", message=f"the spring of {clock}")
        run.keep({"turned": turn})
    return clock


@tasks.task(retry=Retry(attempts=1))
async def tune(bell: str, hertz: int, octave: int = 4, *, gate: Gate) -> int:
    """Tune a bell, which needs a tone.

    Safe to run twice: it only computes.
    """
    logging.getLogger("bells").warning("tuning %s", bell)
    if hertz <= 0 and not gate.mended:
        raise PermanentError(f"the bell {bell} cannot have {hertz} Hz")
    return hertz * octave


@tasks.task(limits=Limits(concurrency=1))
async def toll(bell: str, *, gate: Gate) -> str:
    """Toll a bell, one at a time.

    Safe to run twice: it only waits.
    """
    await gate.open.wait()
    return bell


@tasks.hears(BellRung)
async def write_down_the_ring_in_the_book_of_bells(event: BellRung) -> str:
    """Write down a ring.

    Safe to hear twice: it only returns.
    """
    return event.bell


@dataclass
class Gateway:
    """A running gateway, as another system sees it."""

    url: str
    key: str

    async def submit(self, task: str, **given: Any) -> str:
        """Submit a run over HTTP, and return its id."""
        return (await self.post("/api/v1/tasks", {"task": task, **given}))["id"]

    async def post(self, path: str, body: object) -> Any:
        async with httpx2.AsyncClient(base_url=self.url, timeout=15) as client:
            answer = await client.post(path, json=body, headers={"Authorization": f"Bearer {self.key}"})
        assert answer.is_success, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        async with httpx2.AsyncClient(base_url=self.url, timeout=15) as client:
            return (await client.get(path)).json()

    async def ended(self, *runs: str) -> None:
        """Wait until these runs have ended."""

        async def have() -> bool:
            return all([(await self.get(f"/api/v1/runs/{run}"))["finished_at"] for run in runs])

        await eventually(have)

    async def schedules(self) -> dict[str, bool]:
        """Which schedules there are, and whether they are paused."""
        listed = (await self.get("/api/v1/tasks/scheduled"))["schedules"]
        return {schedule["name"]: schedule["paused"] for schedule in listed}


@dataclass
class Visit:
    """A page of the gateway in a tab of its own, and everything that went wrong in it."""

    page: Page
    gateway: Gateway
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    #: Whether the gateway is to refuse something in this test: Chromium itself notes each such answer.
    may_be_refused: bool = False

    def __post_init__(self) -> None:
        """Listen."""
        self.page.on("request", self._note_request)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._dismiss)

    async def open(self, path: str = "/") -> Page:
        """Go to a page; the status page is there when it is live."""
        await self.page.goto(self.gateway.url + path)
        if path == "/":
            await self.page.locator("#pulse[data-state=live]").wait_for()
        return self.page

    def elsewhere(self) -> list[str]:
        """The requests that left the gateway."""
        return [url for url in self.requests if not url.startswith((f"{self.gateway.url}/", "data:", "blob:"))]

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note_message(self, message: ConsoleMessage) -> None:
        is_refusal = message.text.startswith("Failed to load resource")
        if message.type in {"error", "warning"} and not (is_refusal and self.may_be_refused):
            self.complaints.append(f"console: {message.text} at {message.location['url']}")

    async def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        await dialog.dismiss()


@pytest.fixture(scope="module")
def settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> PlatformSettings:
    asyncio.run(migrate(database_url, "carillon.ledger.migrations", "gateway.migrations"))
    return PlatformSettings(
        database_url=SecretStr(database_url), storage_url=str(tmp_path_factory.mktemp("storage")),
        rabbit_url=None, rabbit_host=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def gateway(settings: PlatformSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder, port = tmp_path_factory.mktemp("gateway"), free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RABBIT_", "GATEWAY_"))}
    env |= {
        "DATABASE_URL": settings.database_url.get_secret_value(), "STORAGE_URL": settings.storage_url,
        "GATEWAY_PORT": str(port), "GATEWAY_KEY_FILE": str(folder / "key"),
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        command = [Path(sys.executable).with_name("carillon"), "serve", "gateway"]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        async with httpx2.AsyncClient(timeout=5) as client:
            try:
                return (await client.get(f"{url}/health/ready")).is_success
            except httpx2.TransportError:
                return False

    try:
        wait_for(eventually(answers, within=40))
        yield Gateway(url, (folder / "key").read_text().strip())
    finally:
        process.terminate()
        process.wait(30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bells(settings: PlatformSettings, gateway: Gateway) -> AsyncIterator[Gate]:
    """The domain at work, its gate open and two schedules shipped; one of them has a name to beware of."""
    gate = Gate()
    gate.open.set()

    @asynccontextmanager
    async def resources(_: Platform) -> AsyncIterator[Mapping[type, object]]:
        yield {Gate: gate}

    schedules = [
        Schedule(name="ring-at-noon", event=BellRung(bell="great"), cron="0 12 * * *", timezone="Europe/Vienna"),
        Schedule(name=f"ring {MARKUP}", event=BellRung(bell="small"), cron="0 0 1 1 *"),
    ]
    service = Service(name="bells", settings=settings, tasks=tasks, resources=resources, schedules=schedules)
    async with Platform(settings, name="test") as platform, running(service, platform):

        async def known() -> bool:
            return len((await gateway.get("/api/v1/tasks"))["tasks"]) == 6

        await eventually(known)
        yield gate


@pytest.fixture
def gate(bells: Gate) -> Iterator[Gate]:
    """The gate, shut until the test opens it."""
    bells.open.clear()
    bells.mended = False
    yield bells
    bells.open.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def markup(gateway: Gateway, bells: Gate) -> str:
    """A failed run full of markup, beside a run that said an event about it."""
    rung = await gateway.submit("bells.ring", args={"bell": MARKUP}, labels={"place": MARKUP})
    cracked = await gateway.submit("bells.crack", args={"bell": MARKUP}, labels={"place": MARKUP})
    await gateway.ended(rung, cracked)
    return cracked


@pytest.fixture
def hostile() -> str:
    return MARKUP


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        started = await driver.chromium.launch(executable_path=chromium, args=flags())
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, gateway: Gateway) -> AsyncIterator[Callable[..., Awaitable[Visit]]]:
    """Opens tabs that share nothing; at the end none of them may have complained."""
    visits: list[Visit] = []

    async def open_tab(**options: Any) -> Visit:
        context = await browser.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        visits.append(Visit(await context.new_page(), gateway))
        return visits[-1]

    yield open_tab
    for visit in visits:
        await visit.page.context.close()
    assert [complaint for visit in visits for complaint in visit.complaints] == []


@pytest_asyncio.fixture(loop_scope="module")
async def operator(tab: Callable[..., Awaitable[Visit]], gateway: Gateway) -> Visit:
    """Somebody who has given their key already."""
    visit = await tab()
    await visit.page.add_init_script(f"sessionStorage.setItem('carillon-key', '{gateway.key}')")
    return visit


@pytest_asyncio.fixture(loop_scope="module")
async def visit(tab: Callable[..., Awaitable[Visit]]) -> Visit:
    return await tab()
