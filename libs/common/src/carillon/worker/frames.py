"""What goes over the socket between a worker and its children: JSON, with its length before it, and never a pickle."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Any

import orjson

#: The length of what follows, in bytes.
HEAD = struct.Struct(">I")
#: Arguments and results have limits far below; what is larger was not written by us.
MOST_BYTES = 16 * 1024 * 1024


def framed(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent; raises `ValueError` for one that nobody would read."""
    body = orjson.dumps(message)
    if len(body) > MOST_BYTES:
        text = f"a message of {len(body)} bytes is larger than {MOST_BYTES}; keep it in storage, and pass its key"
        raise ValueError(text)
    return HEAD.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the other side has gone, or writes what is none."""
    try:
        (size,) = HEAD.unpack(await reader.readexactly(HEAD.size))
        return None if size > MOST_BYTES else _message(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def receive_frame(connection: socket.socket) -> dict[str, Any] | None:
    """The same, blocking."""
    head = _exactly(connection, HEAD.size)
    if head is None:
        return None
    body = _exactly(connection, HEAD.unpack(head)[0])
    return None if body is None else _message(body)


def _message(body: bytes) -> dict[str, Any] | None:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return message if isinstance(message, dict) else None


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        try:
            part = connection.recv(size - len(received))
        except ConnectionError:
            return None
        if not part:
            return None
        received += part
    return bytes(received)
