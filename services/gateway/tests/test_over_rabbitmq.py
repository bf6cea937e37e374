"""Steering and options where RabbitMQ carries the runs."""

from __future__ import annotations

import json
from uuid import uuid4

import aio_pika
import pytest
from pydantic import SecretStr

from carillon.settings import PlatformSettings
from carillon.testing import eventually
from carillon.testing.blocking import wait_for

pytestmark = pytest.mark.rabbitmq

EVENT = "bells.ring_requested.v1"


@pytest.fixture
def gateway(start, at_work, settled_url, rabbit_url, rabbit_prefix):
    settings = PlatformSettings(
        database_url=SecretStr(settled_url), rabbit_url=SecretStr(rabbit_url), rabbit_queue_prefix=rabbit_prefix
    )
    with at_work(settings):
        begun = start(RABBIT_URL=rabbit_url, RABBIT_QUEUE_PREFIX=rabbit_prefix)
        begun.until("/api/v1/tasks", lambda answer: any(task["name"] == "bells.toll" for task in answer["tasks"]))
        assert begun.http.get("/api/v1/overview").json()["transport"] == "rabbitmq"
        yield begun


async def publish(rabbit_url: str, body: bytes) -> None:
    """Publish what is no event, once somebody hears its type."""
    async with await aio_pika.connect(rabbit_url) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange("events")
        message = aio_pika.Message(body, content_type="application/cloudevents+json")

        async def heard() -> bool:
            try:
                await exchange.publish(message, EVENT, timeout=10)
            except aio_pika.exceptions.DeliveryError:
                return False
            return True

        await eventually(heard)


def submit(gateway, **more):
    answer = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 1}} | more)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_a_message_that_could_not_be_read_is_mended_and_heard(gateway, rabbit_url):
    wait_for(publish(rabbit_url, b"{"))
    found = gateway.until("/api/v1/dead-letters", lambda answer: answer["messages"])
    (group,) = found["messages"]
    letter = gateway.http.get(f"/api/v1/dead-letters/{group['fingerprint']}").json()["messages"][0]
    event = {
        "specversion": "1.0", "id": str(uuid4()), "source": "/tower", "type": EVENT, "data": {"bell": "mended"},
    }  # fmt: skip

    path = f"/api/v1/dead-letters/messages/{letter['id']}/redeliver"
    answer, again = (gateway.post(path, {"body": json.dumps(event), "reason": "mended"}) for _ in range(2))

    query = "/api/v1/runs?task=bells.ring_on_request"
    (run,) = gateway.until(query, lambda answer: answer["runs"])["runs"]
    assert letter["text"] == "{"
    assert (answer.status_code, answer.json()["queue"]) == (200, group["queue"])
    assert again.status_code == 404
    assert gateway.ended(run["id"])["args"]["event"]["bell"] == "mended"
    assert gateway.http.get("/api/v1/dead-letters").json()["messages"] == []


def test_a_group_of_messages_is_redelivered_one_first_and_what_comes_back_is_left_alone(gateway, rabbit_prefix):
    for body in (ring_requested("one"), "{", ring_requested("two")):
        bury(gateway, f"{rabbit_prefix}.bells.events", body.encode())
    bury(gateway, f"{rabbit_prefix}.bells.events", b"{", size=2_000_000)
    path = "/api/v1/dead-letters/d00d/redeliver"

    first = gateway.post(path, {"limit": 1, "reason": "mended"}).json()
    rest = gateway.post(path, {"until": first["until"]}).json()

    for bell in ("one", "two"):
        gateway.until(f"/api/v1/runs?arg=event.bell:{bell}", lambda answer: answer["runs"])
    back = gateway.until("/api/v1/dead-letters", lambda answer: len(answer["messages"]) == 2)["messages"]
    trail = gateway.fetch("select reason, details->>'messages' as sent from carillon.audit where subject = 'd00d'")
    assert [(answer["count"], answer["remaining"], answer["cut"]) for answer in (first, rest)] == [(1, 2, 1), (2, 0, 1)]
    assert [group["count"] for group in back] == [1, 1]
    assert [tuple(row) for row in trail] == [("mended", "1"), (None, "2")]


def ring_requested(bell):
    event = {"specversion": "1.0", "id": str(uuid4()), "source": "/tower", "type": EVENT, "data": {"bell": bell}}
    return json.dumps(event)


def bury(gateway, queue, body, size=None):
    headers = json.dumps({"content-type": "application/cloudevents+json"})
    gateway.fetch(
        """insert into carillon.dead_letters (id, domain, queue, reason, fingerprint, body, size, headers)
           values ($1, 'bells', $2, 'no task hears this type', 'd00d', $3, $4, $5)""",
        str(uuid4()), queue, body, size, headers,
    )  # fmt: skip


def test_runs_are_held_cancelled_and_come_after_each_other(gateway):
    gateway.post("/api/v1/domains/bells/pause", {})
    held, unwanted = submit(gateway), submit(gateway)
    last = submit(gateway, after={"runs": [held["id"], unwanted["id"]], "when": "ended"})
    cancelled = gateway.post(f"/api/v1/runs/{unwanted['id']}/cancel", {}).json()
    states = [gateway.http.get(run["status_url"]).json()["status"] for run in (held, unwanted, last)]

    gateway.post("/api/v1/domains/bells/resume", {})

    assert (cancelled["cancelled"], states) == (1, ["queued", "cancelled", "pending"])
    assert gateway.ended(last["id"])["status"] == "completed"
    assert gateway.ended(held["id"])["status"] == "completed"


def test_a_unique_key_is_one_run_until_it_has_ended(gateway):
    unique = {"key": str(uuid4()), "on_conflict": "reject"}
    gateway.post("/api/v1/tasks/bells.ring/pause", {})
    first = submit(gateway, unique=unique)
    second = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 2}, "unique": unique})

    gateway.post("/api/v1/tasks/bells.ring/resume", {})
    gateway.ended(first["id"])

    assert second.status_code == 409
    assert submit(gateway, unique=unique)["created"]


def test_a_group_is_run_again_after_one_that_goes_ahead(gateway):
    runs = [
        gateway.post("/api/v1/tasks", {"task": "bells.crack", "args": {"bell": "x"}}).json()["id"] for _ in range(3)
    ]
    for run in runs:
        gateway.ended(run)
    (group,) = gateway.http.get("/api/v1/dead-letters").json()["runs"]

    act = gateway.post(f"/api/v1/dead-letters/{group['fingerprint']}/replay", {"rate": 100}).json()

    replays = gateway.fetch("select id::text from carillon.runs where replay_of = any($1::uuid[])", runs)
    ends = {row["id"]: gateway.ended(row["id"])["status"] for row in replays}
    assert ends.pop(act["canary"]) == "failed"
    assert list(ends.values()) == ["cancelled", "cancelled"]
