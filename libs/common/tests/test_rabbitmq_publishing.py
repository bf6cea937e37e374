"""Publishing runs below aio-pika: confirms, returns, a channel that closes, and the bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import PublishError

from carillon.transports import rabbitmq_publishing as module
from carillon.transports.rabbitmq_publishing import Publisher

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
async def channel(rabbit_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(rabbit_url) as connection:
        yield await connection.channel(publisher_confirms=True, on_return_raises=True)


@pytest.fixture
async def publisher(channel: AbstractChannel) -> Publisher:
    return Publisher(await channel.get_underlay_channel())


@pytest.fixture
async def queue(channel: AbstractChannel, rabbit_prefix: str) -> aio_pika.abc.AbstractQueue:
    return await channel.declare_queue(f"{rabbit_prefix}.published", exclusive=True)


async def test_messages_arrive_in_order_whole_and_persistent_and_each_is_confirmed(publisher, queue):
    # One is nothing, and so has no frame; the last one is larger than a frame.
    bodies = [b"%d" % number for number in range(500)] + [b"", b"{}", b"x" * 300_000]

    confirms = [publisher.publish(queue.name, body) for body in bodies]
    await asyncio.wait_for(asyncio.gather(*confirms), 10)

    taken = [await queue.get(no_ack=True) for _ in bodies]
    assert [message.body for message in taken] == bodies
    assert {(message.delivery_mode, message.content_type) for message in taken} == {(2, "application/json")}
    assert [message.message_id for message in taken] == [str(number) for number in range(1, len(bodies) + 1)]
    assert publisher.channel.message_id_delivery_tag == {}
    assert publisher._unconfirmed_bytes == 0


async def test_only_the_message_that_has_no_queue_fails(publisher, queue):
    good, lost, also_good = (publisher.publish(name, b"{}") for name in (queue.name, "nowhere", queue.name))

    await asyncio.wait_for(asyncio.wait([good, lost, also_good]), 10)

    assert isinstance(lost.exception(), PublishError)
    assert (good.exception(), also_good.exception()) == (None, None)


async def test_a_channel_that_closes_fails_what_is_not_confirmed_and_takes_no_more(
    publisher, queue, channel, monkeypatch
):
    # It never reaches the broker, which therefore cannot be quicker than the close.
    monkeypatch.setattr(publisher, "_write", lambda: None)

    confirm = publisher.publish(queue.name, b"{}")
    await channel.close()

    await asyncio.wait_for(asyncio.wait([confirm]), 10)

    assert confirm.cancelled() or confirm.exception() is not None
    with pytest.raises(ConnectionError, match="closed"):
        publisher.publish(queue.name, b"{}")


async def test_what_is_not_confirmed_is_bounded(publisher, queue, monkeypatch):
    monkeypatch.setattr(module, "MOST_UNCONFIRMED_BYTES", 100)

    confirms = [publisher.publish(queue.name, b"x" * 60) for _ in range(2)]
    with pytest.raises(ConnectionError, match="has not confirmed 120 bytes"):
        publisher.publish(queue.name, b"x")
    await asyncio.wait_for(asyncio.gather(*confirms), 10)

    await asyncio.wait_for(publisher.publish(queue.name, b"x"), 10)


async def test_a_type_and_headers_of_its_own_arrive_with_the_message(publisher, queue):
    await asyncio.wait_for(publisher.publish(queue.name, b"x", content_type="text/plain", headers={"a": "b"}), 10)

    message = await queue.get(no_ack=True)
    assert (message.body, message.content_type, message.headers) == (b"x", "text/plain", {"a": "b"})
