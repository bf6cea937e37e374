"""What strangers may do to the queues and to the exchange of events, and what must come of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import aio_pika
import orjson
import pytest
from cloudevents.core.bindings import amqp as amqp_binding
from cloudevents.core.bindings import rabbitmq as rabbitmq_binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import SecretStr
from shop import Shop, shop_service

from carillon.ids import new_id
from carillon.ledger.records import NewRun, Priority
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running
from carillon.transports import rabbitmq_events

pytestmark = pytest.mark.long(seconds=60)

PLACED = "shop.order_placed.v1"
STRUCTURED = "application/cloudevents+json"


@pytest.fixture
def settings(ledger_url: str, rabbit_url: str, rabbit_prefix: str, tmp_path) -> PlatformSettings:
    return PlatformSettings(
        database_url=SecretStr(ledger_url),
        rabbit_url=SecretStr(rabbit_url),
        rabbit_queue_prefix=rabbit_prefix,
        storage_url=str(tmp_path),
        carillon_log_format="json",
    )


@pytest.fixture
def shop() -> Shop:
    return Shop()


@asynccontextmanager
async def stranger(settings: PlatformSettings) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """Somebody else's connection to the broker."""
    async with await aio_pika.connect(settings.amqp_url()) as connection:
        yield await connection.channel()


async def send_to_tasks(settings: PlatformSettings, *messages: aio_pika.Message) -> None:
    async with stranger(settings) as channel:
        for message in messages:
            await channel.default_exchange.publish(message, routing_key=f"{settings.rabbit_queue_prefix}.shop.tasks")


async def send_event(settings: PlatformSettings, *messages: aio_pika.Message, key: str = PLACED) -> None:
    async with stranger(settings) as channel:
        exchange = await channel.get_exchange("events")
        for message in messages:
            await exchange.publish(message, routing_key=key, mandatory=False)


async def lying_in(settings: PlatformSettings, kind: str) -> int:
    """Messages of a queue that nobody takes from, and so the unacknowledged ones too."""
    async with stranger(settings) as channel:
        queue = await channel.declare_queue(f"{settings.rabbit_queue_prefix}.shop.{kind}", passive=True)
        return queue.declaration_result.message_count


async def is_taken_from(settings: PlatformSettings, kind: str) -> bool:
    try:
        async with stranger(settings) as channel:
            queue = await channel.declare_queue(f"{settings.rabbit_queue_prefix}.shop.{kind}", passive=True)
            return queue.declaration_result.consumer_count > 0
    except aio_pika.exceptions.ChannelNotFoundEntity:
        return False


@asynccontextmanager
async def hearing(settings: PlatformSettings, shop: Shop, platform: Platform) -> AsyncIterator[None]:
    """The shop, once its queue of events is bound: what is said before is heard by nobody."""
    async with running(shop_service(settings, shop), platform):
        await eventually(lambda: is_taken_from(settings, "events"))
        yield


def addition(number: int, **options: Any) -> NewRun:
    return NewRun(id=new_id(), domain="shop", task="shop.add", args=f'{{"a": {number}}}', **options)


async def done(shop: Shop, *what: str) -> bool:
    return all(shop.done[one] for one in what)


async def letters(platform: Platform, count: int) -> list[Any]:
    async def all_there():
        found = await platform.history.dead_letters(500)
        return found if len(found) >= count else None

    return await eventually(all_there)


def delivery(**changes: object) -> bytes:
    fields = {"id": str(new_id()), "attempt": 1, "task": "shop.add", "args": {"a": 1}, "labels": {}, "cause": None}
    return json.dumps(fields | changes).encode()


GARBAGE = {
    "nothing": aio_pika.Message(b""),
    "random bytes": aio_pika.Message(random.Random(7).randbytes(200)),
    "a pickle": aio_pika.Message(pickle.dumps({"task": "shop.add"})),
    "a pickle that says it is JSON": aio_pika.Message(pickle.dumps([1]), content_type="application/json"),
    "text that says it is gzip": aio_pika.Message(b"hello", content_type="text/plain", content_encoding="gzip"),
    "an array": aio_pika.Message(b"[1, 2]"),
    "a string": aio_pika.Message(b'"shop.add"'),
    "nothing in it": aio_pika.Message(b"{}"),
    "a copy to elsewhere": aio_pika.Message(b"{", headers={"CC": ["nowhere"], "BCC": ["nowhere.else"]}),
    "headers nobody can keep": aio_pika.Message(
        b"{", headers={"nul": "a\x00b", "escape": "\\u0000", "raw": bytearray(b"\xff")}
    ),
    "an id that is none": aio_pika.Message(delivery(id="42")),
    "an attempt that is text": aio_pika.Message(delivery(attempt="first")),
    "an attempt beyond counting": aio_pika.Message(delivery(attempt=2**40)),
    "attempts below nothing": aio_pika.Message(delivery(uncounted=-(2**70))),
    "arguments in a list": aio_pika.Message(delivery(args=[1])),
    "labels in a list": aio_pika.Message(delivery(labels=["a"])),
    "a cause that is text": aio_pika.Message(delivery(cause="because")),
    "a cause without its parts": aio_pika.Message(delivery(cause={"id": "1"})),
    "a trace that is a number": aio_pika.Message(delivery(traceparent=5)),
    "NUL in its place": aio_pika.Message(delivery(id="\x00")),
}


async def test_garbage_among_the_tasks_is_buried_with_a_reason_and_good_runs_go_on(platform, settings, shop):
    await platform.transport.waiting("shop", Priority.NORMAL)
    await send_to_tasks(settings, *GARBAGE.values())

    async with running(shop_service(settings, shop, concurrency=2), platform):
        await platform.submit(addition(1))
        await eventually(lambda: done(shop, "add 1"))
        buried = await letters(platform, len(GARBAGE))

    assert sorted(letter["body"] for letter in buried) == sorted(message.body for message in GARBAGE.values())
    assert {letter["queue"] for letter in buried} == {f"{settings.rabbit_queue_prefix}.shop.tasks"}
    assert all(letter["reason"].startswith("not a run that Carillon can read") for letter in buried)
    assert await lying_in(settings, "tasks") == 0


async def test_a_message_from_the_future_does_not_make_waiting_runs_look_lost(platform, settings, shop):
    await platform.transport.waiting("shop", Priority.NORMAL)
    await send_to_tasks(settings, aio_pika.Message(delivery(given_at=1e300)), aio_pika.Message(delivery(given_at=4e9)))
    service = shop_service(settings, shop, concurrency=1)

    async with running(service, platform):
        await platform.submit(NewRun(id=new_id(), domain="shop", task="shop.wait_at_the_gate", args='{"name": "x"}'))
        await asyncio.wait_for(shop.entered.wait(), 10)
        await platform.submit(addition(2))
        for sweep in (1, 2, 3):
            await platform.submit(addition(10 + sweep, run_at=datetime.now(UTC)))
            await eventually(lambda sweep=sweep: swept(service, "due", sweep))
        shop.gate.set()
        await eventually(lambda: done(shop, "add 2", "add 11", "add 12", "add 13"))

    assert await swept(service, "overdue", 1) is False


async def swept(service: Any, reason: str, at_least: int) -> bool:
    return service.metrics.swept.labels(reason)._value.get() >= at_least


async def test_a_run_that_is_delivered_three_times_runs_once(platform, settings, shop):
    run = addition(3)
    await platform.submit(run)
    again = delivery(id=str(run.id), args={"a": 3})
    await send_to_tasks(settings, aio_pika.Message(again), aio_pika.Message(again))

    service = shop_service(settings, shop, concurrency=1)
    async with running(service, platform):
        await eventually(lambda: fenced(service, 2))

    assert shop.done["add 3"] == 1
    assert [a["outcome"] for a in await platform.history.attempts(run.id)] == ["completed"]
    assert await lying_in(settings, "tasks") == 0


async def fenced(service: Any, count: int) -> bool:
    return service.metrics.fenced._value.get() >= count


def placed(order: str, name: str) -> CloudEvent:
    attributes = {"id": name, "source": "/webshop", "type": PLACED, "specversion": "1.0", "time": datetime.now(UTC)}
    return CloudEvent(attributes | {"datacontenttype": "application/json", "subject": order}, {"order": order})


def structured_by_hand(order: str, name: str) -> aio_pika.Message:
    event = {"specversion": "1.0", "id": name, "source": "/webshop", "type": PLACED, "data": {"order": order}}
    return aio_pika.Message(json.dumps(event).encode(), content_type=f"{STRUCTURED}; charset=utf-8")


def binary_by_hand(order: str, name: str) -> aio_pika.Message:
    attributes = {"specversion": "1.0", "id": name, "source": "/webshop", "type": PLACED, "time": datetime.now(UTC)}
    headers = {f"cloudEvents:{key}": value for key, value in attributes.items()}
    return aio_pika.Message(orjson.dumps({"order": order}), content_type="application/json", headers=headers)


def structured_by_cloudevents(order: str, name: str) -> aio_pika.Message:
    made = rabbitmq_binding.to_structured(placed(order, name), JSONFormat())
    return aio_pika.Message(made.body, content_type=made.content_type)


def binary_by_cloudevents(order: str, name: str) -> aio_pika.Message:
    made = rabbitmq_binding.to_binary(placed(order, name), JSONFormat())
    return aio_pika.Message(made.body, content_type=made.content_type, headers=made.headers)


def binary_by_cloudevents_for_amqp(order: str, name: str) -> aio_pika.Message:
    made = amqp_binding.to_binary(placed(order, name), JSONFormat())
    kind = made.properties["content-type"]
    return aio_pika.Message(made.application_data, content_type=kind, headers=made.application_properties)


SPEAKERS = [
    structured_by_hand,
    binary_by_hand,
    structured_by_cloudevents,
    binary_by_cloudevents,
    binary_by_cloudevents_for_amqp,
]


async def test_an_event_of_any_foreign_client_is_answered_once_by_each_hearer(platform, settings, shop):
    orders = {f"order of {speak.__name__}": speak for speak in SPEAKERS}
    async with hearing(settings, shop, platform):
        for order, speak in orders.items():
            await send_event(settings, speak(order, order), speak(order, order))
        await eventually(lambda: done(shop, *(f"shipped {o}" for o in orders), *(f"thanked for {o}" for o in orders)))
        await send_event(settings, structured_by_hand("the last", "the last"))
        await eventually(lambda: done(shop, "shipped the last", "thanked for the last"))

    packed = {f"packed {order} because of {PLACED}": 1 for order in (*orders, "the last")}
    thanked = {f"thanked for {order}": 1 for order in (*orders, "the last")}
    shipped = {f"shipped {order}": 1 for order in (*orders, "the last")}
    assert shop.done == packed | thanked | shipped
    assert await platform.history.dead_letters() == []
    assert await lying_in(settings, "events") == 0


def structured(**changes: object) -> aio_pika.Message:
    event = {"specversion": "1.0", "id": str(new_id()), "source": "/webshop", "type": PLACED, "data": {"order": "x"}}
    kept = {name: value for name, value in (event | changes).items() if value is not None}
    return aio_pika.Message(json.dumps(kept).encode(), content_type=STRUCTURED)


def binary(body: bytes, **attributes: str) -> aio_pika.Message:
    headers = {"cloudEvents:specversion": "1.0", "cloudEvents:id": str(new_id()), "cloudEvents:source": "/webshop"}
    headers |= {"cloudEvents:type": PLACED} | {f"cloudEvents:{name}": value for name, value in attributes.items()}
    return aio_pika.Message(body, content_type="application/json", headers=headers)


#: What is sent, and the words that its reason must have.
UNREADABLE = [
    (aio_pika.Message(b""), "send application/cloudevents+json"),
    (aio_pika.Message(random.Random(8).randbytes(100), content_type=STRUCTURED), "the body is not JSON"),
    (aio_pika.Message(pickle.dumps({"id": 1}), content_type="application/json"), "send application/cloudevents+json"),
    (aio_pika.Message(b"[]", content_type=STRUCTURED), "not a CloudEvent"),
    (aio_pika.Message(b'["a", "b"]', content_type="application/cloudevents-batch+json"), "not a CloudEvent"),
    (structured(specversion=None), "specversion is missing"),
    (structured(specversion="0.3"), "specversion"),
    (structured(source=None), "source"),
    (structured(time="yesterday"), "time"),
    (structured(time="2999-01-01T00:00:00Z"), "lies in the future"),
    (structured(data={}), "order"),
    (structured(data={"order": ["x"]}), "order"),
    (structured(data="x"), "data"),
    (structured(data={"order": "a\x00b"}), "NUL"),
    (structured(data=None, data_base64="e30="), "data_base64"),
    (structured(data={"order": "x" * 300_000}), "more than"),
    (binary(b"{}"), "order"),
    (binary(b"<order/>"), "the body is not JSON"),
    (binary(b'{"order": "y"}', time="soon"), "time"),
    (binary(b'{"order": "x"}', id=""), "id"),
]


async def test_an_event_nobody_can_read_is_buried_with_the_reason_and_the_queue_goes_on(platform, settings, shop):
    async with hearing(settings, shop, platform):
        await send_event(settings, *(message for message, _ in UNREADABLE))
        await send_event(settings, structured_by_hand("a good one", "1"))
        await eventually(lambda: done(shop, "shipped a good one", "thanked for a good one"))
        buried = await letters(platform, len(UNREADABLE))

    said = {letter["body"]: letter["reason"] for letter in buried}
    assert [said[message.body] for message, reason in UNREADABLE if reason not in said[message.body]] == []
    assert len(said) == len(buried) == len(UNREADABLE)
    assert sum(shop.done.values()) == 3
    assert await lying_in(settings, "events") == 0


async def test_a_batch_is_buried_because_a_queue_takes_events_one_by_one(platform, settings, shop):
    events = [json.loads(structured_by_hand(f"b{number}", f"b{number}").body) for number in range(3)]
    batch = aio_pika.Message(json.dumps(events).encode(), content_type="application/cloudevents-batch+json")

    async with hearing(settings, shop, platform):
        await send_event(settings, batch)
        buried = await letters(platform, 1)

    assert "send each in a message of its own" in buried[0]["reason"]
    assert await lying_in(settings, "events") == 0


async def test_the_same_event_with_other_data_is_buried_and_changes_no_answer(platform, settings, shop):
    async with hearing(settings, shop, platform):
        await send_event(settings, structured_by_hand("first", "same"))
        await eventually(lambda: done(shop, "shipped first", "thanked for first"))
        await send_event(settings, structured_by_hand("second", "same"))
        buried = await letters(platform, 1)

    assert "other" in buried[0]["reason"]
    assert sum(shop.done.values()) == 3
    assert await lying_in(settings, "events") == 0


async def test_an_event_that_nobody_hears_harms_nobody(platform, settings, shop):
    async with hearing(settings, shop, platform):
        await send_event(settings, structured(type="shop.unheard_of.v1"), key="shop.unheard_of.v1")
        await send_event(settings, structured_by_hand("heard", "1"))
        await eventually(lambda: done(shop, "shipped heard", "thanked for heard"))

    assert await platform.history.dead_letters() == []


async def test_an_event_that_comes_under_a_wrong_key_is_buried(platform, settings, shop):
    async with hearing(settings, shop, platform):
        await send_event(settings, structured(type="shop.unheard_of.v1"), key=PLACED)
        buried = await letters(platform, 1)

    assert "no task of this domain hears this type" in buried[0]["reason"]
    assert await lying_in(settings, "events") == 0


async def test_a_worker_whose_queues_are_deleted_gets_them_back_and_goes_on(platform, settings, shop):
    async with running(shop_service(settings, shop), platform):
        await platform.submit(addition(4))
        await eventually(lambda: done(shop, "add 4"))
        async with stranger(settings) as channel:
            for kind in ("tasks", "events"):
                await channel.queue_delete(f"{settings.rabbit_queue_prefix}.shop.{kind}")
        await platform.submit(addition(5))
        await eventually(lambda: done(shop, "add 5"), within=30)
        await eventually(lambda: is_taken_from(settings, "events"))
        await send_event(settings, structured_by_hand("afterwards", "1"))
        await eventually(lambda: done(shop, "shipped afterwards", "thanked for afterwards"), within=30)

    assert await platform.history.dead_letters() == []


async def test_a_binding_that_is_removed_is_there_again(platform, settings, shop, monkeypatch):
    monkeypatch.setattr(rabbitmq_events, "BINDING_SECONDS", 0.2)
    asked = itertools.count()

    async def heard_again() -> bool:
        order = f"o{next(asked)}"
        await send_event(settings, structured_by_hand(order, order))
        return any(what.startswith("thanked for o") for what in shop.done)

    async with hearing(settings, shop, platform):
        async with stranger(settings) as channel:
            queue = await channel.get_queue(f"{settings.rabbit_queue_prefix}.shop.events")
            await queue.unbind("events", PLACED)
        await eventually(heard_again, within=10)


async def test_hearing_ends_although_the_binding_forgets_that_it_was_cancelled(platform, settings, shop, monkeypatch):
    monkeypatch.setattr(rabbitmq_events, "BINDING_SECONDS", 0.01)
    began = asyncio.Event()

    async def bind(_: object) -> None:
        began.set()
        # As `asyncio.wait_for` does before Python 3.12 when the answer comes at the same moment.
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with hearing(settings, shop, platform):
        monkeypatch.setattr(rabbitmq_events._Hearing, "bind", bind)
        await asyncio.wait_for(began.wait(), 15)

    assert began.is_set()


async def test_a_worker_finishes_what_it_has_when_the_broker_goes_while_it_stops(settings, shop, platform, monkeypatch):
    async def goes(*_: object) -> None:
        shop.gate.set()
        raise ConnectionError("the broker is gone")

    async with hearing(settings, shop, platform):
        run = NewRun(id=new_id(), domain="shop", task="shop.wait_at_the_gate", args='{"name": "Ada"}')
        await platform.submit(run)
        await asyncio.wait_for(shop.entered.wait(), 15)
        monkeypatch.setattr(rabbitmq_events.RabbitBroker, "stop", goes)

    row = await platform.history.run(run.id)
    assert (row["state"], row["attempt"]) == ("completed", 1)
