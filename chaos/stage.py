"""The stage of one scenario: its processes, its ledgers, its load, and the clock of its fault."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from chaos import collecting, journal
from chaos.client import Plan
from chaos.crew import Crew, Member
from chaos.errors import NotReadyError
from chaos.evidence import Depth, Evidence, Mark
from chaos.recovery import WINDOW_SECONDS, rate, recovery_seconds
from chaos.servers import delete_queues
from chaos.settings import ChaosSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from chaos.profiles import Profile
    from chaos.servers import Servers

LOOK_SECONDS = 0.1
#: How long the scenario waits for the old rate; the checker has its own opinion of what is slow.
RECOVERY_SECONDS = 35.0
#: Until the client's first answers, and the first ends, have come.
WARM_SECONDS = 1.0
#: Of what is offered; with less, a rate that comes back means nothing.
LEAST_SHARE = 0.6


class Stage:
    """What a scenario works with. Use `stage()` to open one."""

    def __init__(self, servers: Servers, profile: Profile, transport: str, seed: int, name: str) -> None:
        self.servers = servers
        self.profile = profile
        self.transport = transport
        self.seed = seed
        self.dice = random.Random(seed)
        self.prefix = f"chaos-{name}"
        self.folder: Path = servers.home / "stages" / name
        self.settings = ChaosSettings(folder=self.folder)
        self.faults: Counter[str] = Counter()
        #: What the scenario itself found wrong, as sentences.
        self.broken: list[str] = []
        self.may_fail: set[str] = set()
        self.client: Member | None = None
        #: Runs per second: what the client offers, and what ended before the fault.
        self.offered = 0.0
        self.usual = 0.0
        self.healed_at = 0.0
        self.recovery: float | None = None
        self.stop_seconds: dict[str, float] = {}
        self._tail = journal.Tail(self.settings.executions)
        self._marks: list[Mark] = []
        self.ledger_url = self.effects_url = ""
        self.crew = Crew(self.folder, {})

    async def prepare(self) -> None:
        """Make what the processes need before they start."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.ledger_url, self.effects_url = await self.servers.databases()
        env = {
            "DATABASE_URL": self.ledger_url,
            "REDIS_URL": self.servers.valkey.url,
            "STORAGE_URL": str(self.folder / "storage"),
            "CARILLON_LOG_FORMAT": "json",
            "CHAOS_FOLDER": str(self.folder),
            "CHAOS_EFFECTS_URL": self.effects_url,
            "CHAOS_SILENCE": str(self.profile.silence),
        }
        if self.transport == "rabbitmq":
            env |= {"RABBIT_URL": self.servers.url_of_node, "RABBIT_QUEUE_PREFIX": self.prefix}
        self.crew.env = env

    def workers(self, **env: str) -> None:
        """Start the profile's workers; `under_load` waits until they take runs."""
        for domain, count in self.profile.workers.items():
            for _ in range(count):
                self.worker(domain, **env)

    def worker(self, domain: str, **env: str) -> Member:
        """Start one more worker of a domain."""
        return self.crew.add(domain, "-m", "chaos.worker", domain, **env)

    def submit(self, *, env: dict[str, str] | None = None, **plan: Any) -> Member:
        """Start the client, which connects and waits for `begin`."""
        whole = Plan(**{"seed": self.seed, "rate": self.profile.rate, **plan})
        self.offered = whole.rate
        told = {"CHAOS_PLAN": orjson.dumps(whole.model_dump()).decode(), **(env or {})}
        self.client = self.crew.add("client", "-m", "chaos.client", ready="", **told)
        # Its end is its own: it has submitted what it was to.
        self.client.wanted = False
        return self.client

    @asynccontextmanager
    async def under_load(self, *, env: dict[str, str] | None = None, **plan: Any) -> AsyncIterator[None]:
        """Load before, during and after the fault, which is the body. After it the old rate has to come back.

        `env` is for client and workers.
        """
        if not any(member.name in self.profile.workers for member in self.crew.members):
            self.workers(**(env or {}))
        self.submit(env=env, **plan)
        await self.crew.ready()
        self.settings.start_signal.touch()
        await self.measure_usual()
        yield
        self.healed()
        await self.recover()
        await self.quiet()

    async def measure_usual(self) -> None:
        """Measure the rate while nothing is wrong; raises `NotReadyError` when there is none to speak of."""
        if not await self.until(self.flowing, 20):
            message = "no run ended within 20 s of the first submit, before any fault"
            raise NotReadyError(message)
        await asyncio.sleep(WARM_SECONDS)
        began = time.time()
        await asyncio.sleep(self.profile.usual)
        # What ends beyond the offer makes up for a slow start, and is no rate to come back to.
        self.usual = min(rate(self.ends(), began, time.time()), self.offered)
        if self.usual < LEAST_SHARE * self.offered:
            message = (
                f"only {self.usual:.0f} of {self.offered:g} runs/s ended before any fault; the machine is too busy"
            )
            raise NotReadyError(message)

    def flowing(self) -> bool:
        """Whether anything has ended yet."""
        return bool(self.ends())

    def healed(self) -> None:
        """The fault is over, from now; the first call counts."""
        self.healed_at = self.healed_at or time.time()

    async def recover(self) -> None:
        """Wait until the old rate is back, or for as long as anybody would."""
        deadline = self.healed_at + RECOVERY_SECONDS
        # One window at least, so that a rate that collapses after the healing is seen.
        await asyncio.sleep(WINDOW_SECONDS)
        while time.time() < deadline:
            self.recovery = recovery_seconds(self.ends(), self.usual, self.healed_at, time.time())
            if self.recovery <= RECOVERY_SECONDS:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def quiet(self) -> None:
        """Stop the load, and wait until everything has ended, or the profile's patience has."""
        if self.client is not None:
            await self.crew.stop(self.client)
        await self.until_async(self.settled, self.profile.settle)

    async def settled(self) -> bool:
        """Whether nothing is left to do."""
        if not await collecting.all_ended(self.ledger_url, self.effects_url):
            return False
        return not any(depth.ready or depth.unacknowledged for depth in (await self.depths()).values())

    async def depths(self) -> dict[str, Depth]:
        """The queues of this stage."""
        return await collecting.depths(self.servers, self.prefix) if self.transport == "rabbitmq" else {}

    def marks(self) -> list[Mark]:
        """All that tasks have written until now."""
        self._marks += collecting.marks(self._tail.lines())
        return self._marks

    def ends(self, *domains: str) -> list[float]:
        """When runs ended, of these domains or of all that the client gives work to."""
        return sorted(
            mark.at
            for mark in self.marks()
            if mark.kind in {"end", "raise"} and mark.ticket and (not domains or mark.domain in domains)
        )

    def ended_between(self, begin: float, end: float, *domains: str) -> int:
        """How many runs ended between two moments."""
        return sum(1 for at in self.ends(*domains) if begin <= at <= end)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a broken expectation of the scenario itself."""
        if not holds:
            self.broken.append(otherwise)

    async def until(self, look: Any, within: float) -> bool:
        """Look until it is so; False when it is not within that many seconds."""

        async def asked() -> bool:
            return bool(look())

        return await self.until_async(asked, within)

    async def until_async(self, look: Any, within: float) -> bool:
        """The same for what has to be awaited. A server that does not answer has not said yes."""
        deadline = time.monotonic() + within
        while True:
            try:
                if await look():
                    return True
            except OSError:
                pass
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_SECONDS)

    async def every(self, seconds: float, *, lasting: float) -> AsyncIterator[int]:
        """Numbers, one each so many seconds, for as long as that."""
        deadline, number = time.monotonic() + lasting, 0
        while time.monotonic() < deadline:
            yield number
            number += 1
            await asyncio.sleep(seconds)

    def kill(self, member: Member | None, counted_as: str) -> bool:
        """Kill a process with SIGKILL, and count it when it was there to be killed."""
        if member is None or not member.signal(signal.SIGKILL):
            return False
        self.faults[counted_as] += 1
        return True

    def tallied(self, what: str) -> list[dict[str, Any]]:
        """Faults that processes did to themselves."""
        return [line for line in journal.read(self.settings.tally) if line["what"] == what]

    async def evidence(self) -> Evidence:
        """All ledgers, after the processes have ended."""
        depths = await self.depths()
        self.stop_seconds = await self.crew.stop_all()
        submits, answers = collecting.asked(self.settings)
        effects, tries = await collecting.effects(self.effects_url)
        return Evidence(
            submits=submits,
            answers=answers,
            marks=list(self.marks()),
            effects=effects,
            tries=tries,
            runs=await collecting.runs(self.ledger_url),
            ends=await collecting.ends(self.ledger_url),
            queues=depths,
            faults=dict(self.faults),
            recovery_seconds=self.recovery,
            may_fail=frozenset(self.may_fail),
            broken=list(self.broken),
        )

    async def clear(self) -> None:
        """End what still runs, and forget what was made for it."""
        self.crew.kill_all()
        if self.transport == "rabbitmq":
            await delete_queues(self.servers.url_of_node, (await self.depths()).keys())
        await self.servers.drop(self.ledger_url, self.effects_url)


@asynccontextmanager
async def stage(servers: Servers, profile: Profile, transport: str, seed: int, name: str) -> AsyncIterator[Stage]:
    """Open a stage, and leave nothing of it but its folder of journals and logs."""
    opened = Stage(servers, profile, transport, seed, name)
    await opened.prepare()
    try:
        yield opened
    finally:
        await opened.clear()
