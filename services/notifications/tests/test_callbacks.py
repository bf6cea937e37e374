"""Whoever submits a run with an address is told how it ended: signed, at least once, and known by the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook as Verifier

from carillon import NEVER, Service, Tasks
from carillon.errors import Cancel, PermanentError
from carillon.ids import new_id
from carillon.ledger.records import NewRun
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from notifications import app

if TYPE_CHECKING:
    from conftest import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BUSY = (503, {"retry-after": "0"}, b"busy")
tasks = Tasks("orders")


@tasks.task(retry=NEVER)
async def place(how: str) -> str:
    """End in a given way. Safe to run twice: it only ends."""
    if how == "failed":
        raise PermanentError("it can never work")
    if how == "cancelled":
        raise Cancel("nobody wants it")
    return how


@pytest.fixture(params=["postgres", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def platform(
    request: pytest.FixtureRequest, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> AsyncIterator[Platform]:
    for name in ("RABBIT_URL", "RABBIT_HOST", "NOTIFICATIONS_SMTP_HOST", "NOTIFICATIONS_WEBHOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    env = {
        "DATABASE_URL": database_url,
        "STORAGE_URL": str(tmp_path),
        "CARILLON_HOME": str(tmp_path),
        "CARILLON_LOG_FORMAT": "json",
        "NOTIFICATIONS_PORT": "0",
        "NOTIFICATIONS_WEBHOOK_SECRET": SECRET,
        "NOTIFICATIONS_WEBHOOK_ALLOW_PRIVATE": "true",
    }
    if request.param == "rabbitmq":
        env["RABBIT_URL"] = request.getfixturevalue("rabbit_url")
        env["RABBIT_QUEUE_PREFIX"] = request.getfixturevalue("rabbit_prefix")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    await migrate(database_url, "carillon.ledger.migrations")
    await migrate(database_url, "notifications.migrations")
    async with Platform(PlatformSettings(), name="test") as opened:
        yield opened
        async with opened.ledger.transaction() as connection:
            await connection.execute(
                "truncate carillon.runs, carillon.attempts, carillon.events, carillon.causes, carillon.tasks,"
                " carillon.workers, notifications.deliveries"
            )


def orders(platform: Platform) -> Service:
    return Service(name="orders", settings=platform.settings, tasks=tasks)


async def submitted(platform: Platform, how: str, url: str) -> UUID:
    run = NewRun(id=new_id(), domain="orders", task="orders.place", args=f'{{"how": "{how}"}}', callback_url=url)
    await platform.submit(run)
    return run.id


async def deliveries(platform: Platform) -> list[dict[str, Any]]:
    rows = await platform.ledger.pool.fetch("select * from notifications.deliveries order by created_at")
    return [dict(row) for row in rows]


async def calling(platform: Platform, state: str) -> list[Any]:
    """The runs that call back and have ended so, once there are any."""
    query = "select * from carillon.runs where task = 'notifications.call_back' and state = $1"
    return await eventually(lambda: platform.ledger.pool.fetch(query, state), within=30)


async def arrived(platform: Platform, count: int) -> list[dict[str, Any]]:
    async def look() -> list[dict[str, Any]] | None:
        rows = await deliveries(platform)
        return rows if [row["state"] for row in rows] == ["delivered"] * count else None

    return await eventually(look, within=30)


async def test_each_end_is_posted_signed_and_tried_until_it_is_taken(platform: Platform, receiver: Receiver) -> None:
    receiver.answers = [BUSY, BUSY]

    async with running(app.service(), platform), running(orders(platform), platform):
        runs = {how: await submitted(platform, how, receiver.url) for how in ("completed", "failed", "cancelled")}
        rows = await arrived(platform, 3)

    told = [Verifier(SECRET).verify(body, headers) for headers, body in receiver.requests]
    assert {each["type"] for each in told} == {"carillon.run_ended.v1"}
    assert {each["data"]["run_id"]: each["data"]["state"] for each in told} == {str(v): k for k, v in runs.items()}
    errors = {each["data"]["state"]: each["data"]["error"] for each in told}
    assert errors == {"completed": None, "failed": "it can never work", "cancelled": "nobody wants it"}
    assert all(b"callback_url" not in body for _, body in receiver.requests)
    # Two were busy, so that two messages came once more, as the same messages.
    sent = Counter(receiver.ids())
    assert (len(sent), sum(sent.values())) == (3, 5)
    assert sorted(row["attempts"] for row in rows) in ([1, 1, 3], [1, 2, 2])
    assert {row["cause"] for row in rows} == {f"{run}/end" for run in runs.values()}


async def test_who_asked_before_there_was_anybody_to_call_back_is_called_later(
    platform: Platform, receiver: Receiver
) -> None:
    async with running(orders(platform), platform):
        run = await submitted(platform, "completed", receiver.url)

        async def is_said() -> bool:
            return bool(await platform.ledger.pool.fetchval("select count(*) from carillon.events"))

        await eventually(is_said)
    async with platform.ledger.transaction() as connection:
        await connection.execute("update carillon.events set recorded_at = now() - interval '2 days'")

    async with running(app.service(), platform):
        (row,) = await arrived(platform, 1)

    assert row["cause"] == f"{run}/end"
    assert len(receiver.requests) == 1


async def test_an_address_inside_is_refused_for_good_and_never_asked(
    platform: Platform, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFICATIONS_WEBHOOK_ALLOW_PRIVATE", "false")

    async with running(app.service(), platform), running(orders(platform), platform):
        await submitted(platform, "completed", receiver.url)
        (run,) = await calling(platform, "failed")

    (row,) = await deliveries(platform)
    assert (run["attempt"], run["error"]["type"]) == (1, "ForbiddenAddressError")
    assert (row["state"], "which is not a public address" in row["error"]) == ("refused", True)
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("secret", "url", "told"),
    [("", "https://shop.example/x", "set NOTIFICATIONS_WEBHOOK_SECRET"), (SECRET, "http://[::1", "not a web address")],
)
async def test_a_callback_that_cannot_be_made_says_what_to_do(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, secret: str, url: str, told: str
) -> None:
    monkeypatch.setenv("NOTIFICATIONS_WEBHOOK_SECRET", secret)

    async with running(app.service(), platform), running(orders(platform), platform):
        await submitted(platform, "completed", url)
        (run,) = await calling(platform, "failed")

    assert run["attempt"] == 1
    assert told in run["error"]["message"]
