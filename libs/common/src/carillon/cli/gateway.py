"""The gateway of a running platform, as the commands that act ask it: over HTTP, with the operator's key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from carillon.cli.exits import MistypedError
from carillon.cli.settings import CommandSettings
from carillon.cli.web import ask
from carillon.errors import CarillonError, ConfigurationError, PlatformUnavailableError

ANSWERED = range(200, 300)
UNKNOWN_KEY = 401
AWAY = 503
#: The problem of a request that was read and does not fit; it was made of what was typed.
MISFIT = "/docs#problem-invalid"


class RefusedError(CarillonError):
    """The gateway refused what was asked; the message is its sentence."""


class Gateway:
    """Asks the gateway. Raises `ConfigurationError` where its address or the key is missing."""

    def __init__(self, settings: CommandSettings) -> None:
        self.url = _checked(settings.url)
        self.key = _key(settings)

    async def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        """What a path below `/api/v1/` answers; raises as `post` does."""
        return await self._ask(f"{path}?{urlencode(query, doseq=True)}" if query else path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What a path below `/api/v1/` answers to a body, of which what is None is left out.

        Raises `RefusedError` for what was refused, `MistypedError` where that is because of what was typed,
        `ConfigurationError` for an unknown key, and `PlatformUnavailableError` where nobody answers or the platform
        cannot do it right now.
        """
        return await self._ask(path, {name: value for name, value in body.items() if value is not None})

    async def _ask(self, path: str, body: object) -> Any:
        answer = await ask(f"{self.url}/api/v1/{path}", key=self.key, body=body)
        if answer.status in ANSWERED:
            return answer.json()
        if answer.status == UNKNOWN_KEY:
            message = (
                f"The gateway at {self.url} does not know this key; set CARILLON_KEY, or CARILLON_HOME to its folder."
            )
            raise ConfigurationError(message)
        message = f"The gateway refused: {answer.problem()}"
        if answer.status == AWAY:
            raise PlatformUnavailableError(message)
        raise MistypedError(message) if answer.problem_type() == MISFIT else RefusedError(message)


def step(name: str) -> str:
    """A name as one step of a path."""
    return quote(name, safe="")


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        message = f"CARILLON_URL is {url!r}; it has to begin with http:// or https://."
        raise ConfigurationError(message)
    return url


def _key(settings: CommandSettings) -> str:
    if settings.carillon_key is not None:
        return settings.carillon_key.get_secret_value()
    try:
        return settings.key_file.read_text().strip()
    except OSError as error:
        message = (
            f"There is no key in {settings.key_file} ({error.strerror}); start the platform with `make run` "
            "in this folder, or set CARILLON_KEY and CARILLON_URL."
        )
        raise ConfigurationError(message) from error
