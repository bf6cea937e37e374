"""Whoever submits a run with an address is told how it ended: signed, at least once, and known by the run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook as Verifier

from carillon import NEVER, Service, Tasks
from carillon.cloudevents import Envelope
from carillon.contracts import RunEnded
from carillon.errors import Cancel, PermanentError
from carillon.ids import new_id
from carillon.ledger.audit import Actor
from carillon.ledger.records import NewRun
from carillon.migrations import migrate
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from notifications import app
from notifications.callbacks import CallbackSecrets
from notifications.webhooks import checked_secrets

if TYPE_CHECKING:
    from conftest import Receiver
    from sqlalchemy.ext.asyncio import AsyncEngine

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
                " carillon.workers, notifications.deliveries, notifications.roots"
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

    (secret,) = await CallbackSecrets(platform.engine).of(receiver.origin)
    told = [Verifier(secret).verify(body, headers) for headers, body in receiver.requests]
    assert {each["type"] for each in told} == {"carillon.run_ended.v1"}
    assert {each["data"]["run_id"]: each["data"]["state"] for each in told} == {str(v): k for k, v in runs.items()}
    errors = {each["data"]["state"]: each["data"]["error"] for each in told}
    assert errors == {"completed": None, "failed": "it can never work", "cancelled": "nobody wants it"}
    assert all(b"callback_url" not in body and b"receiver" not in body for _, body in receiver.requests)
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


async def test_what_is_no_web_address_says_what_to_do(platform: Platform) -> None:
    async with running(app.service(), platform), running(orders(platform), platform):
        await submitted(platform, "completed", "http://[::1")
        (run,) = await calling(platform, "failed")

    assert run["attempt"] == 1
    assert "submit it with one as https://host/path" in run["error"]["message"]


async def test_the_address_is_read_nowhere_and_the_callback_is_found_from_its_run(
    platform: Platform, receiver: Receiver
) -> None:
    url = f"{receiver.url}/sesame?token=sesame"

    async with running(app.service(), platform), running(orders(platform), platform):
        run = await submitted(platform, "completed", url)
        (row,) = await arrived(platform, 1)

        (event,) = await platform.history.said_by(run)
        (answer,) = await platform.history.answers_to(event["id"])
        calling_run = await platform.history.run(answer["id"])

    assert receiver.paths == ["/hook/sesame?token=sesame"]
    assert (row["destination"], event["data"]["receiver"]) == (f"{receiver.origin}/...", receiver.origin)
    assert answer["task"] == "notifications.call_back"
    assert "sesame" not in str([row, event, calling_run, await platform.history.changes(run)])


async def test_an_invented_end_tells_nobody_what_did_not_happen(platform: Platform, receiver: Receiver) -> None:
    async with running(app.service(), platform), running(orders(platform), platform):
        run = await submitted(platform, "completed", receiver.url)
        await arrived(platform, 1)
        unended = NewRun(id=new_id(), domain="nobody", task="nobody.home", args="{}", callback_url=receiver.url)
        await platform.submit(unended)
        for about in (run, unended.id, new_id()):
            invented = RunEnded(
                run_id=about, task="bank.pay", state="failed", attempt=9, finished_at=datetime.now(UTC),
                error="pay again", receiver="https://elsewhere.example",
            )  # fmt: skip
            await platform.say(Envelope.of(invented, source="/nobody"), actor="nobody")
        refused = await eventually(partial(two_failed, platform), within=30)

    assert sorted(row["error"]["message"].split(f" {row['args']['event']['run_id']} ")[1] for row in refused) == [
        "has not ended, or nobody asked to be told of it",
        "was deleted, and with it the address to call back",
    ]
    assert [b"pay again" in body for _, body in receiver.requests] == [False]


async def test_a_receiver_that_does_not_answer_holds_up_nobody_else(platform: Platform, receiver: Receiver) -> None:
    asked, answered = 0, asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        await answered.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async with (
        await asyncio.start_server(answer_late, "127.0.0.1", 0) as slow,
        running(app.service(), platform),
        running(orders(platform), platform),
    ):
        port = slow.sockets[0].getsockname()[1]
        for _ in range(8):
            await submitted(platform, "completed", f"http://127.0.0.1:{port}/")
        await eventually(partial(is_true, lambda: asked == 4))
        await submitted(platform, "completed", receiver.url)
        await eventually(partial(is_true, lambda: receiver.requests))
        at_once = asked
        answered.set()
        await arrived(platform, 9)

    assert (at_once, asked) == (4, 8)


async def is_true(look: Callable[[], Any]) -> bool:
    return bool(look())


async def two_failed(platform: Platform) -> list[Any] | None:
    query = "select * from carillon.runs where task = 'notifications.call_back' and state = 'failed'"
    rows = await platform.ledger.pool.fetch(query)
    return rows if len(rows) == 2 else None


async def test_every_receiver_has_a_secret_of_its_own_and_an_old_one_holds_for_a_week(engine: AsyncEngine) -> None:
    secrets, shop = CallbackSecrets(engine), "https://shop.example"
    first, (other,) = await secrets.of(shop), await secrets.of("https://bank.example")

    await secrets.replace(Actor("ann", "a test"), "it was in a ticket")
    both = await secrets.of(shop)
    async with engine.begin() as connection:
        await connection.execute(text("update notifications.roots set made_at = made_at - interval '8 days'"))
        entry = (await connection.execute(text("select * from carillon.audit order by seq desc limit 1"))).one()
    last = await secrets.of(shop)

    assert len({*first, other, both[0]}) == 3
    assert (both[1:], last) == (first, both[:1])
    assert (entry.action, entry.subject, entry.reason) == ("secret.replaced", "callbacks", "it was in a ticket")
    assert checked_secrets(" ".join(both)) == both


def test_the_command_prints_the_secret_of_one_receiver(
    engine: AsyncEngine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    command = [sys.executable, "-m", "notifications.callback_secret"]

    def said(*arguments: str) -> str:
        return subprocess.run([*command, *arguments], capture_output=True, check=True, text=True, timeout=60).stdout

    before = said("https://shop.example/hook?token=x")
    after = said("https://SHOP.example:443", "--replace")
    refused = subprocess.run([*command, "shop.example"], capture_output=True, check=False, text=True, timeout=60)

    assert before == before.strip() + "\n" != after == said("https://shop.example")
    assert (refused.returncode, refused.stdout, "write it as https://host" in refused.stderr) == (78, "", True)
