"""`carillon tour`: asks for one backup over HTTP and shows what every service makes of it, by events alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

from rich.console import Console
from rich.live import Live

from carillon.cli.chain import Chain, Step
from carillon.cli.exits import OK, in_one_sentence
from carillon.cli.gateway import Gateway
from carillon.cli.settings import CommandSettings
from carillon.cli.tour_view import goodbye, picture
from carillon.cli.web import Answer, ask
from carillon.contracts import BackupRequested
from carillon.errors import CarillonError, ConfigurationError

#: The whole chain takes some seconds; with nothing new for this long, something stands still.
QUIET_SECONDS = 60.0
#: Between two looks at the gateway.
LOOK_SECONDS = 0.25
PLAIN_WIDTH = 140
ACCEPTED = 202
UNKNOWN_KEY = 401
AWAY = 503
#: The gateway takes nothing while PostgreSQL starts; the same event is sent again for this long.
SEND_SECONDS = 30.0


class TourError(CarillonError):
    """The chain did not come to its end; the sentence says where it stopped."""


def run() -> int:
    """Take the tour; 0 when the last step is done."""
    return in_one_sentence(lambda: asyncio.run(_tour(CommandSettings())))


async def _tour(settings: CommandSettings) -> int:
    key = Gateway(settings).key
    console, began = _console(), time.monotonic()
    chain = Chain(settings.url, key, await _send(settings.url, key), BackupRequested.type)
    console.print(f"Sent the event [bold]{BackupRequested.type}[/bold] to {settings.url}. What it sets off:\n")
    with Live(console=console, auto_refresh=False) as live:
        await _follow(chain, lambda: live.update(picture(chain, time.monotonic() - began), refresh=True))
    console.print(goodbye(chain, settings.url, time.monotonic() - began), soft_wrap=True)
    return OK


async def _follow(chain: Chain, show: Callable[[], None]) -> None:
    quiet_since, seen = time.monotonic(), ""
    while True:
        await chain.look()
        show()
        if failed := chain.failed():
            raise TourError(_failure(failed))
        if chain.complete():
            return
        if (now := chain.fingerprint()) != seen:
            quiet_since, seen = time.monotonic(), now
        if time.monotonic() - quiet_since > QUIET_SECONDS:
            raise TourError(_standstill(chain))
        await asyncio.sleep(LOOK_SECONDS)


def _console() -> Console:
    """As wide as the terminal; where there is none, wide enough for every line."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def _failure(step: Step) -> str:
    return f"{step.task} ended {step.state}: {step.error or 'it gave no reason'}; everything about it: {step.page}"


def _standstill(chain: Chain) -> str:
    waiting = next((step for step in chain.steps if not step.ended), None)
    if waiting is None:
        return "An event was not answered; `carillon doctor` says which service does not run."
    return f"{waiting.task} is still {waiting.state} after {QUIET_SECONDS:.0f} s; `carillon doctor` says why."


async def _send(url: str, key: str) -> str:
    """Publish the event as a CloudEvent, as any system could; returns the id it is recorded under."""
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/tour",
        "type": BackupRequested.type,
        "data": {"source": "platform"},
    }
    answer = await _post(url, key, event)
    if answer.status == UNKNOWN_KEY:
        message = f"The gateway at {url} does not know this key; set CARILLON_KEY, or CARILLON_HOME to its folder."
        raise ConfigurationError(message)
    if answer.status != ACCEPTED:
        message = f"The gateway did not take the event: {answer.problem()}"
        raise TourError(message)
    return str(answer.json()["events"][0]["id"])


async def _post(url: str, key: str, event: object) -> Answer:
    """Send the event, and send the same one again while the gateway takes nothing."""
    deadline = time.monotonic() + SEND_SECONDS
    while True:
        answer = await ask(f"{url}/api/v1/events", key=key, body=event, content_type="application/cloudevents+json")
        if answer.status != AWAY or time.monotonic() > deadline:
            return answer
        await asyncio.sleep(LOOK_SECONDS)
