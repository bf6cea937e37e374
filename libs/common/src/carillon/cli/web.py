"""Asking the gateway over HTTP, as any program could: the standard library's client is enough for that."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from carillon.errors import PlatformUnavailableError

#: An answer that takes longer counts as none, in seconds.
ANSWER_SECONDS = 10.0
#: No answer is read further, in bytes.
MOST_BYTES = 20 << 20


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; an empty object when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def problem(self) -> str:
        """Why the answer is not the wanted one, in the gateway's words (RFC 9457) where it has any."""
        told = self.json()
        return f"{(told.get('detail') if isinstance(told, dict) else None) or 'no reason given'} (HTTP {self.status})"

    def problem_type(self) -> str | None:
        """Which kind of problem it is, where the gateway says so."""
        told = self.json()
        return told.get("type") if isinstance(told, dict) else None


async def ask(
    url: str, *, key: str | None = None, body: object = None, content_type: str = "application/json"
) -> Answer:
    """GET, or POST where there is a body; raises `PlatformUnavailableError` when nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=_headers(key, content_type))  # noqa: S310 - checked by the caller
    return await asyncio.to_thread(_open, request)


def _headers(key: str | None, content_type: str) -> dict[str, str]:
    headers = {"Accept": "application/json", "Content-Type": content_type}
    return headers if key is None else headers | {"Authorization": f"Bearer {key}"}


def _open(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - see ask
            return Answer(answer.status, answer.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(MOST_BYTES))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        message = f"Nothing answers at {request.full_url} ({reason}); is the platform running (`make run`)?"
        raise PlatformUnavailableError(message) from error
