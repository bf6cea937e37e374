"""Signs and posts webhooks as Standard Webhooks (standardwebhooks.com, specification 1.0) describes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2
from standardwebhooks import Webhook as Signer

from carillon.errors import ConfigurationError
from notifications.errors import WebhookRefusedError, WebhookUnavailableError
from notifications.outbound import GuardedTransport, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from pydantic import JsonValue

#: Longest exchange, name resolution and answer included, in seconds.
TOTAL_SECONDS = 15.0
#: How much of an answer is read; its status is what counts.
MAX_ANSWER = 64 * 1024
#: Longest wait a receiver may ask for.
MAX_RETRY_AFTER = timedelta(hours=1)
#: How many random bytes a signing secret has.
SECRET_BYTES = range(24, 65)
#: How many secrets sign one message at most.
MOST_SECRETS = 5
#: Every TCP port that can be connected to.
PORTS = range(1, 65536)
#: Statuses below 500 that a later attempt may not meet again.
PASSING = frozenset({408, 409, 423, 425, 429})


def payload_of(event_type: str, happened: datetime, data: Mapping[str, JsonValue]) -> bytes:
    """Write the body once: these very bytes are signed and sent, on every attempt."""
    body = {"type": event_type, "timestamp": happened.astimezone(UTC).isoformat(), "data": dict(data)}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def checked_secrets(text: str) -> list[str]:
    """Return the signing secrets, if each is `whsec_` and base64 of 24 to 64 bytes, as the specification asks.

    Several, with spaces between, are for the time in which a receiver changes over from one to another.
    """
    secrets = text.split()
    if not 1 <= len(secrets) <= MOST_SECRETS or not all(_size(secret) in SECRET_BYTES for secret in secrets):
        message = (
            "NOTIFICATIONS_WEBHOOK_SECRET must be `whsec_` followed by 24 to 64 random bytes in base64, or up to "
            f"{MOST_SECRETS} such with spaces between; "
            "make one with: python3 -c \"import base64,os;print('whsec_'+base64.b64encode(os.urandom(32)).decode())\""
        )
        raise ConfigurationError(message)
    return secrets


def _size(secret: str) -> int:
    try:
        return len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        return 0


def checked_url(text: str) -> httpx2.URL:
    """Return the receiver's address if it can be one; the text stays out of the error, for it can hold secrets."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if not url.host or (url.port or 443) not in PORTS:
        message = "NOTIFICATIONS_WEBHOOK_URL is not a web address; write it as https://host/path"
        raise ConfigurationError(message)
    return url


def signed_headers(secrets: Sequence[str], message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers that let the receiver check who sent which bytes, and when.

    One signature for each secret, with spaces between: a receiver needs to know one of them.
    """
    at = now.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Signer(secret).sign(message_id, at, body.decode()) for secret in secrets),
    }


class Poster:
    """Signs bodies, and posts them to whichever receiver."""

    def __init__(self, transport: GuardedTransport) -> None:
        self._client = httpx2.AsyncClient(
            transport=transport, follow_redirects=False, trust_env=False, timeout=TOTAL_SECONDS
        )

    async def post(self, url: httpx2.URL, secrets: Sequence[str], body: bytes, delivery: UUID) -> None:
        """Deliver the bytes; the delivery's id is the `webhook-id` of every attempt."""
        headers = signed_headers(secrets, f"msg_{delivery.hex}", datetime.now(UTC), body)
        headers |= {"content-type": "application/json", "user-agent": "Carillon", "accept-encoding": "identity"}
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                status, answer, wait = await self._exchange(url, body, headers)
        except (httpx2.TransportError, TimeoutError) as error:
            message = f"{shown(url)} gave no answer within {TOTAL_SECONDS:.0f} s: {error or type(error).__name__}"
            raise WebhookUnavailableError(message) from error
        _judge(shown(url), status, answer, wait)

    async def _exchange(
        self, url: httpx2.URL, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, timedelta | None]:
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            return response.status_code, await _beginning(response), wait

    async def aclose(self) -> None:
        """Close what is open."""
        await self._client.aclose()


class Webhook:
    """One receiver of webhooks, and the secrets of which it knows one."""

    def __init__(self, url: str, secrets: Sequence[str], poster: Poster) -> None:
        self._url = checked_url(url)
        self._secrets = secrets
        self._poster = poster

    @property
    def destination(self) -> str:
        """The receiver as the delivery log names it, without secrets."""
        return shown(self._url)

    async def post(self, body: bytes, delivery: UUID) -> None:
        """Deliver the bytes; the delivery's id is the `webhook-id` of every attempt."""
        await self._poster.post(self._url, self._secrets, body, delivery)


async def _beginning(response: httpx2.Response) -> bytes:
    """Read at most MAX_ANSWER raw bytes; leaving the stream closes the connection on the rest."""
    answer = bytearray()
    # Raw, so that a small compressed answer cannot grow into a large one here.
    async for chunk in response.aiter_raw():
        answer += chunk
        if len(answer) >= MAX_ANSWER:
            break
    return bytes(answer[:MAX_ANSWER])


def _judge(destination: str, status: int, answer: bytes, wait: timedelta | None) -> None:
    if httpx2.codes.is_success(status):
        return
    if httpx2.codes.is_redirect(status):
        message = f"{destination} answered {status}, a redirect, which webhooks never follow; set the final address"
        raise WebhookRefusedError(message)
    said = "".join(character for character in answer[:200].decode("utf-8", "replace") if character.isprintable())
    message = f"{destination} answered {status}: {said or '(nothing)'}"
    if httpx2.codes.is_server_error(status) or status in PASSING:
        raise WebhookUnavailableError(message, retry_after=wait)
    raise WebhookRefusedError(message)


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header, in seconds or as an HTTP date (RFC 9110, 10.2.3), between 0 and an hour."""
    if value is None:
        return None
    try:
        wait = timedelta(seconds=min(int(value), 86_400)) if value.isdecimal() else parsedate_to_datetime(value) - now
    except (ValueError, TypeError):
        return None
    return max(timedelta(0), min(wait, MAX_RETRY_AFTER))
