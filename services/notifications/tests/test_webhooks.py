"""Webhooks are signed as the specification says, reach a real receiver, and never an address inside."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from carillon.errors import ConfigurationError
from notifications.errors import ForbiddenAddressError, WebhookRefusedError, WebhookUnavailableError
from notifications.outbound import GuardedTransport, is_public
from notifications.webhooks import (
    Poster,
    Webhook,
    checked_secrets,
    checked_url,
    payload_of,
    retry_after,
    signed_headers,
)

if TYPE_CHECKING:
    from conftest import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = payload_of(
    "reports.report_rendered.v1", datetime(2026, 11, 24, tzinfo=UTC), {"report": "operations", "title": "Übersicht"}
)
WebhookTo = Callable[[str, GuardedTransport], Webhook]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
async def webhook_to() -> AsyncIterator[WebhookTo]:
    async with AsyncExitStack() as stack:

        def make(url: str, transport: GuardedTransport) -> Webhook:
            poster = Poster(transport)
            stack.push_async_callback(poster.aclose)
            return Webhook(url, [SECRET], poster)

        yield make


@pytest.fixture
def webhook(receiver: Receiver, webhook_to: WebhookTo) -> Webhook:
    return webhook_to(receiver.url, GuardedTransport(allow_private=True))


def test_the_signature_is_the_one_of_the_published_vector() -> None:
    sent = datetime.fromtimestamp(1614265330, UTC)

    headers = signed_headers([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", sent, b'{"test": 2432232314}')

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_secrets_change_each_of_them_proves_the_message() -> None:
    new, now = "whsec_" + "QUFB" * 8, datetime.now(UTC)

    secrets = checked_secrets(f"{new} {SECRET}")
    headers = signed_headers(secrets, "msg_1", now, BODY)

    assert [Verifier(secret).verify(BODY, headers)["type"] for secret in secrets] == ["reports.report_rendered.v1"] * 2


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!", "whsec_\u00e4", "whsec_" + "QUFB" * 22, f"{SECRET} x"]
)
def test_a_secret_outside_24_to_64_bytes_is_refused_at_start(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFICATIONS_WEBHOOK_SECRET"):
        checked_secrets(secret)


async def test_the_receiver_can_verify_exactly_what_it_got(webhook: Webhook, receiver: Receiver) -> None:
    await webhook.post(BODY, uuid4())

    ((headers, body),) = receiver.requests
    verified = Verifier(SECRET).verify(body, headers)
    assert verified == {
        "type": "reports.report_rendered.v1",
        "timestamp": "2026-11-24T00:00:00+00:00",
        "data": {"report": "operations", "title": "Übersicht"},
    }
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body.replace(b"operations", b"operationz"), headers)


async def test_every_attempt_of_a_delivery_has_the_same_webhook_id(webhook: Webhook, receiver: Receiver) -> None:
    delivery = uuid4()
    receiver.answers = [(503, {"retry-after": "120"}, b"busy")]

    with pytest.raises(WebhookUnavailableError, match="503: busy") as caught:
        await webhook.post(BODY, delivery)
    await webhook.post(BODY, delivery)

    assert receiver.ids() == [f"msg_{delivery.hex}"] * 2
    assert caught.value.retry_after == timedelta(minutes=2)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 422])
async def test_a_refusal_is_not_tried_again(webhook: Webhook, receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {}, b"no")]

    with pytest.raises(WebhookRefusedError, match=f"{status}: no"):
        await webhook.post(BODY, uuid4())


async def test_a_redirect_is_refused_and_not_followed(webhook: Webhook, receiver: Receiver) -> None:
    receiver.answers = [(302, {"location": receiver.url}, b"")]

    with pytest.raises(WebhookRefusedError, match="redirect"):
        await webhook.post(BODY, uuid4())

    assert len(receiver.requests) == 1


async def test_an_endless_answer_is_left_after_64_kb(webhook: Webhook, receiver: Receiver) -> None:
    receiver.answers = [(200, {}, None)]

    await webhook.post(BODY, uuid4())

    assert await asyncio.to_thread(receiver.hung_up.wait, 10)
    assert receiver.written < 64 << 20


async def test_a_compressed_bomb_is_not_unpacked(webhook: Webhook, receiver: Receiver) -> None:
    receiver.answers = [(400, {"content-encoding": "gzip"}, gzip.compress(bytes(50_000_000)))]

    with pytest.raises(WebhookRefusedError, match="400"):
        await webhook.post(BODY, uuid4())


async def test_a_receiver_that_is_down_is_tried_again(closed_port: int, webhook_to: WebhookTo) -> None:
    webhook = webhook_to(f"http://127.0.0.1:{closed_port}/", GuardedTransport(allow_private=True))

    with pytest.raises(WebhookUnavailableError):
        await webhook.post(BODY, uuid4())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1"],
)
async def test_nothing_reaches_an_address_inside_however_it_is_written(
    receiver: Receiver, host: str, webhook_to: WebhookTo
) -> None:
    webhook = webhook_to(f"http://{host}:{receiver.port}/hook", GuardedTransport(allow_private=False))

    with pytest.raises((ForbiddenAddressError, WebhookUnavailableError)):
        await webhook.post(BODY, uuid4())

    assert receiver.requests == []


@pytest.mark.parametrize(
    "url", ["http://0177.0.0.1/", "http://a\nb/", "http://[::1", "file:///etc/passwd", "", "https://host:99999999/"]
)
def test_what_is_not_an_address_is_refused_at_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFICATIONS_WEBHOOK_URL"):
        checked_url(url)


@pytest.mark.parametrize("url", ["ftp://example.org/", "gopher://example.org/", "http://u:p@example.org/"])
async def test_only_plain_http_addresses_are_taken(url: str, webhook_to: WebhookTo) -> None:
    webhook = webhook_to(url, GuardedTransport(allow_private=True))

    with pytest.raises((WebhookRefusedError, WebhookUnavailableError)) as caught:
        await webhook.post(BODY, uuid4())

    assert "u:p" not in str(caught.value)


async def test_a_name_with_one_private_address_is_refused_whole(receiver: Receiver, webhook_to: WebhookTo) -> None:
    async def mixed(_host: str, _port: int) -> Sequence[str]:
        return ["93.184.215.14", "127.0.0.1"]

    webhook = webhook_to(f"http://hook.example:{receiver.port}/", GuardedTransport(allow_private=False, resolver=mixed))

    with pytest.raises(ForbiddenAddressError, match=r"127\.0\.0\.1"):
        await webhook.post(BODY, uuid4())


async def test_the_address_that_was_checked_is_the_one_connected_to(receiver: Receiver, webhook_to: WebhookTo) -> None:
    asked: list[str] = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    webhook = webhook_to(
        f"http://hook.example:{receiver.port}/x", GuardedTransport(allow_private=True, resolver=rebinding)
    )
    await webhook.post(BODY, uuid4())

    assert asked == ["hook.example"]
    assert receiver.requests[0][0]["host"] == f"hook.example:{receiver.port}"


async def test_proxy_variables_are_ignored(
    receiver: Receiver, closed_port: int, monkeypatch: pytest.MonkeyPatch, webhook_to: WebhookTo
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    webhook = webhook_to(receiver.url, GuardedTransport(allow_private=True))

    await webhook.post(BODY, uuid4())

    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "192.0.0.192",
        "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fd00::1", "ff02::1",
        "::ffff:169.254.169.254", "::ffff:8.8.8.8", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a9fe:a9fe::", "2001::1",
        "2001:db8::1", "3fff::1", "5f00::1", "fec0::1",
    ],
)  # fmt: skip
def test_addresses_that_nobody_outside_may_reach_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:82a::200e"])
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (None, None),
        ("120", timedelta(minutes=2)),
        ("999999999999", timedelta(hours=1)),
        ("-5", None),
        ("soon", None),
        ("Tue, 24 Nov 2026 12:10:00 GMT", timedelta(minutes=10)),
        ("Tue, 24 Nov 2020 12:10:00 GMT", timedelta(0)),
        ("Tue, 24 Nov 2026 12:10:00", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(value: str | None, wait: timedelta | None) -> None:
    assert retry_after(value, NOW) == wait


def test_the_body_is_the_same_bytes_for_the_same_event() -> None:
    data = {"b": 1, "a": [1, 2]}

    assert payload_of("x.y.v1", NOW, data) == payload_of("x.y.v1", NOW, dict(data))
    assert json.loads(payload_of("x.y.v1", NOW, data))["data"] == data
