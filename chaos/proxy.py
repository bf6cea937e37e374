"""A TCP proxy in front of a server: it delays, holds, resets and cuts what passes through it, and counts."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

CONNECT_SECONDS = 5.0
CHUNK = 65_536
#: Closing with this sends a reset instead of a goodbye.
LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass
class Counts:
    """What passed and what was done to it."""

    connections: int = 0
    forwarded_bytes: int = 0
    #: Chunks that met a black hole.
    held: int = 0
    reset: int = 0
    cut: int = 0


class Proxy:
    """Forwards to `host:port` from a free port of the loopback, until it is told to do worse."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        #: Seconds that each chunk is kept, in both directions.
        self.delay = 0.0
        self.counts = Counts()
        self.port = 0
        self._refusing = False
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self._passing.set()
        self._end_all(reset=False)

    def black_hole(self) -> None:
        """Keep every connection open and let nothing through; new ones are taken and get no answer."""
        self._passing.clear()

    def reset(self) -> None:
        """End every connection with a reset, and new ones at once, until `heal`."""
        self._refusing = True
        self.counts.reset += self._end_all(reset=True)

    def cut(self) -> None:
        """End every connection once; new ones are welcome."""
        self.counts.cut += self._end_all(reset=True)

    def heal(self) -> None:
        """Be a good proxy again. What a black hole held goes on its way."""
        self._refusing = False
        self.delay = 0.0
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts.connections += 1
        if self._refusing:
            self.counts.reset += 1
            _end(writer, reset=True)
            return
        self._writers.add(writer)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers.add(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            self._forget(far_writer)
        except (OSError, TimeoutError):
            pass
        finally:
            self._forget(writer)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK):
                if not self._passing.is_set():
                    self.counts.held += 1
                    await self._passing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(chunk)
                await sink.drain()
                self.counts.forwarded_bytes += len(chunk)
        self._forget(sink)

    def _end_all(self, *, reset: bool) -> int:
        ended = list(self._writers)
        for writer in ended:
            _end(writer, reset=reset)
        self._writers.clear()
        return len(ended)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        with suppress(OSError):
            writer.close()


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    raw = writer.get_extra_info("socket")
    if reset and raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()
