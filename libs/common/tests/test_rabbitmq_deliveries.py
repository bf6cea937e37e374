"""Taking deliveries out of what the broker sends: whole, in order, and leaving aiormq everything else."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aio_pika
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.connection import SSLContextProvider
from aiormq.exceptions import InvalidFrameError
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from yarl import URL

from carillon.ledger.records import Delivery, Priority
from carillon.transports import rabbitmq_deliveries as module
from carillon.transports.port import Acknowledge
from carillon.transports.rabbitmq_deliveries import Delivered, Deliveries, DeliveryReader, TakingConnection
from carillon.transports.rabbitmq_runs import RunConsumer
from carillon.transports.wire import encode

ALIVE = marshal(Heartbeat(), 0)
OPENED = marshal(Channel.OpenOk(), 1)


def frames(tag: str, number: int, *bodies: bytes, channel: int = 1, **headers: str) -> list[bytes]:
    """A delivery as a broker sends it: a method, a header, and the body in so many frames."""
    size = sum(map(len, bodies))
    return [
        marshal(Basic.Deliver(consumer_tag=tag, delivery_tag=number, exchange="", routing_key="q"), channel),
        marshal(ContentHeader(body_size=size, properties=Basic.Properties(headers=headers)), channel),
        *(marshal(ContentBody(body), channel) for body in bodies),
    ]


@pytest.fixture
def taken() -> list[Delivered]:
    return []


@pytest.fixture
async def reader(taken: list[Delivered], monkeypatch) -> DeliveryReader:
    monkeypatch.setattr(module, "ALIVE_SECONDS", 60.0)
    return DeliveryReader({b"ours": taken.append}, asyncio.get_running_loop())


@pytest.mark.parametrize("piece", [1, 3, 8, 100, 10**6])
async def test_deliveries_are_taken_and_the_rest_left_however_the_bytes_come(reader, taken, piece):
    other = frames("theirs", 1, b"not ours", channel=2)
    large = frames("ours", 2, b"x" * 1000, b"y" * 500, b"z", channel=1, name="value")
    # Frames of other channels may come in the middle of a delivery, and another delivery of ours, too.
    mixed = [large[0], other[0], large[1], ALIVE, large[2], *frames("ours", 9, b"{}", channel=3), other[1], *large[3:]]
    stream = b"".join([OPENED, *frames("ours", 1, b"{}"), *mixed, other[2], *frames("ours", 3), OPENED])

    for at in range(0, len(stream), piece):
        reader.feed_data(stream[at : at + piece])
    reader.feed_eof()

    assert await reader.read() == b"".join([OPENED, other[0], ALIVE, other[1], other[2], OPENED])
    assert [(each.tag, each.body) for each in taken] == [
        (1, b"{}"), (9, b"{}"), (2, b"x" * 1000 + b"y" * 500 + b"z"), (3, b"")
    ]  # fmt: skip
    assert [each.headers for each in taken] == [{}, {}, {"name": "value"}, {}]


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", OPENED[:-1] + b"\x00", b"AMQP\x00\x00\x09\x01"]
)
async def test_what_is_no_frame_is_left_for_aiormq_to_judge(reader, taken, garbage):
    reader.feed_data(OPENED + garbage)
    reader.feed_data(b"".join(frames("ours", 1, b"{}")))
    reader.feed_eof()

    assert await reader.read() == OPENED + garbage + b"".join(frames("ours", 1, b"{}"))
    assert taken == []


@pytest.mark.parametrize("then", [OPENED, marshal(ContentBody(b"{}"), 1), frames("ours", 2)[0]])
async def test_a_delivery_that_is_not_brought_to_its_end_breaks_the_connection(reader, taken, then):
    reader.feed_data(frames("ours", 1, b"{}")[0] + then)

    with pytest.raises(InvalidFrameError, match="in the middle of a delivery on channel 1"):
        await reader.readexactly(1)
    assert taken == []


async def test_a_connection_that_ends_within_a_frame_leaves_what_came_of_it(reader):
    reader.feed_data(OPENED + OPENED[:5])
    reader.feed_eof()

    assert await reader.read() == OPENED + OPENED[:5]


async def test_aiormq_hears_that_a_connection_lives_which_brings_deliveries_only(reader, monkeypatch):
    monkeypatch.setattr(module, "ALIVE_SECONDS", 0.0)

    reader.feed_data(b"".join(frames("ours", 1, b"{}")))
    reader.feed_eof()

    assert await reader.read() == ALIVE


async def test_headers_that_nobody_can_read_are_none():
    assert Delivered(1, b"", b"\x02\x00\x01\x00\x00\x00\x02xx\xce").headers == {}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*command, *names], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


async def test_a_connection_over_tls_proves_who_the_broker_is(certificate):
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OPENED)
        writer.close()

    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    trusting, wary = ssl.create_default_context(cafile=str(certificate)), ssl.create_default_context()
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving) as server:
        url = URL(f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        reader, writer = await Deliveries().create(url, ssl_context_provider=provider(trusting))
        answered = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await Deliveries().create(url, ssl_context_provider=provider(wary))

    assert answered == OPENED


def provider(context: ssl.SSLContext) -> SSLContextProvider:
    return SSLContextProvider(ssl_context=context, ssl_certs=None, loop=asyncio.get_running_loop())  # type: ignore[arg-type] # a context needs none


@pytest.fixture
async def connection(rabbit_url: str) -> AsyncIterator[TakingConnection]:
    async with await aio_pika.connect_robust(rabbit_url, connection_class=TakingConnection) as connection:
        yield connection


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_run_is_executed_whether_aiormq_reads_it_or_not(connection, rabbit_prefix, monkeypatch, is_known):
    read: list[DeliveredMessage] = []
    of = Delivered.of
    monkeypatch.setattr(Delivered, "of", lambda message: read.append(message) or of(message))
    run = Delivery(id=uuid4(), attempt=1, task="shop.add", args={"a": 1})
    executed: asyncio.Queue[Delivery] = asyncio.Queue()

    async def execute(delivery: Delivery, acknowledge: Acknowledge) -> None:
        executed.put_nowait(delivery)
        await acknowledge()

    consumer = RunConsumer(connection, {Priority.NORMAL: f"{rabbit_prefix}.tasks"}, 5, execute, never_bury)
    await consumer.start()
    if not is_known:
        connection.deliveries.takers.clear()
    channel = await connection.channel()
    await channel.default_exchange.publish(aio_pika.Message(encode(run)), f"{rabbit_prefix}.tasks")
    first = await asyncio.wait_for(executed.get(), 15)
    await consumer.stop()

    assert (first, executed.qsize()) == (run, 0)
    assert len(read) == (0 if is_known else 1)


async def never_bury(*letter: object) -> None:
    raise AssertionError(letter)
