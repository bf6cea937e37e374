"""What one event set off, read from the gateway: runs, the events they said, and the runs that answered those."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from carillon.cli.web import ask
from carillon.errors import PlatformUnavailableError

#: Beyond these the run will not change.
WELL, ILL = frozenset({"completed"}), frozenset({"failed", "cancelled", "partial"})
ANSWERED = 200
#: The clocks of this machine and of the platform may differ by this much.
CLOCK_SLACK = timedelta(minutes=5)


@dataclass
class Step:
    """One run of the chain."""

    id: str
    page: str
    task: str
    depth: int
    state: str = "queued"
    error: str = ""
    seconds: float | None = None
    said: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    #: How many runs have to answer what it said, and how many do.
    expected: int = 0
    answered: int = 0
    #: Whether its details were read after its end.
    read: bool = False

    @property
    def settled(self) -> bool:
        """Whether the run is over and everything it said is answered."""
        return self.read and self.answered >= self.expected

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.state in WELL | ILL


class Chain:
    """Grows with every look, until every run has ended and every event that somebody hears is answered."""

    def __init__(self, url: str, key: str, event: str, event_type: str) -> None:
        self.steps: list[Step] = []
        self._url = url
        self._key = key
        self._event = event
        self._type = event_type
        self._since = (datetime.now(UTC) - CLOCK_SLACK).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._hearers: dict[str, list[str]] = {}

    async def look(self) -> None:
        """Ask about everything that may have changed."""
        if not self._hearers:
            await self._read_catalogue()
        if not self.steps:
            await self._find_first()
        await asyncio.gather(*(self._refresh(step) for step in self.steps if not step.settled))

    def complete(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.steps) and all(step.settled for step in self.steps)

    def failed(self) -> Step | None:
        """The first run that ended badly."""
        return next((step for step in self.steps if step.state in ILL), None)

    def fingerprint(self) -> str:
        """Changes when anything does."""
        return "|".join(f"{step.task}{step.state}{step.answered}" for step in self.steps)

    def artefacts(self) -> list[Mapping[str, Any]]:
        """The files that were made on the way."""
        return [file for step in self.steps for _, data in step.said for file in data.get("artefacts", ())]

    def deliveries(self) -> list[str]:
        """Where messages went."""
        return [data["destination"] for step in self.steps for _, data in step.said if "destination" in data]

    async def _read_catalogue(self) -> None:
        for task in (await self._get("/api/v1/tasks"))["tasks"]:
            if task["hears"]:
                self._hearers.setdefault(task["hears"], []).append(task["name"])

    async def _find_first(self) -> None:
        """The runs that answer our own event."""
        for task in self._hearers.get(self._type, ()):
            query = urlencode({"task": task, "since": self._since, "limit": 20})
            for row in (await self._get(f"/api/v1/runs?{query}"))["runs"]:
                details = await self._get(f"/api/v1/runs/{row['id']}")
                if details["cause"] and details["cause"]["id"] == self._event:
                    self._add(row, depth=0)

    def _add(self, row: Mapping[str, Any], depth: int) -> None:
        if all(step.id != row["id"] for step in self.steps):
            page = f"{self._url}/runs/{row['id']}"
            self.steps.append(Step(row["id"], page, row["task"], depth, row["state"]))

    async def _refresh(self, step: Step) -> None:
        details = await self._get(f"/api/v1/runs/{step.id}")
        said = details["said"]
        step.state = details["status"]
        step.error = (details["error"] or {}).get("message", "")
        step.seconds = _seconds(details)
        step.said = [(part["event"]["type"], part["data"]) for part in said]
        step.expected = sum(len(self._hearers.get(kind, ())) for kind, _ in step.said)
        step.answered = sum(len(part["answers"]) for part in said)
        step.read = step.ended
        for part in said:
            for answer in part["answers"]:
                self._add(answer, step.depth + 1)

    async def _get(self, path: str) -> Any:
        answer = await ask(f"{self._url}{path}", key=self._key)
        if answer.status != ANSWERED:
            message = f"The gateway did not answer {path.partition('?')[0]}: {answer.problem()}"
            raise PlatformUnavailableError(message)
        return answer.json()


def _seconds(details: Mapping[str, Any]) -> float | None:
    if not details["started_at"] or not details["finished_at"]:
        return None
    began, ended = (datetime.fromisoformat(details[name]) for name in ("started_at", "finished_at"))
    return (ended - began).total_seconds()
