"""The broker of tasks that were declared and not yet connected to a platform."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NoReturn

from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.exceptions import SendTaskError

from carillon.errors import NotConnectedError


class UnconnectedBroker(AsyncBroker):
    """Says what is missing when a task is used too early."""

    def __init__(self, domain: str) -> None:
        super().__init__()
        self._domain = domain

    def _refuse(self) -> NoReturn:
        message = (
            f"the domain {self._domain!r} is not connected to a platform; "
            "enter `async with carillon.connect(tasks):` first, or run inside its service"
        )
        raise NotConnectedError(message)

    async def kick(self, message: BrokerMessage) -> None:  # noqa: ARG002 - Taskiq's signature
        """Refuse."""
        self._refuse()

    async def kick_one(self, task: object, args: Sequence[Any], arguments: Mapping[str, Any]) -> NoReturn:  # noqa: ARG002
        """Refuse, as Taskiq's `kiq` says it."""
        try:
            self._refuse()
        except NotConnectedError as error:
            raise SendTaskError from error

    async def kick_many(
        self,
        task: object,  # noqa: ARG002 - of the connected one, as are the others
        calls: Sequence[Mapping[str, Any]],  # noqa: ARG002
        labels: Mapping[str, Any],  # noqa: ARG002
        *,
        first: int,  # noqa: ARG002
    ) -> list[str]:
        """Refuse."""
        self._refuse()

    async def listen(self) -> AsyncGenerator[bytes | AckableMessage, None]:
        """Refuse."""
        self._refuse()
        yield b""  # makes this a generator, as Taskiq wants
