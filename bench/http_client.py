"""A client that costs little, in a process of its own.

`python -m bench.http_client PORT PATH CONNECTIONS WARM_UP COUNT` reads the key and the body from standard input, as
JSON `{"key", "body"}`. It sends the same request over connections that are kept alive, the next one when the last was
answered: WARM_UP times on each connection, then COUNT times in all, which it measures. It writes `Answered` to standard
output, as JSON. It knows as much of HTTP as the gateway's answers need: a status, a length, a body.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCEPTED = b"HTTP/1.1 202"
_LENGTH = b"content-length: "


@dataclass(frozen=True)
class Answered:
    """What came back, and what asking cost."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    #: Processor seconds of this process while the clock ran.
    client_cpu_seconds: float


class Caller(asyncio.Protocol):
    """One connection: sends when it is answered, as long as there is something left to send."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._sent_at = 0.0
        self._left: Iterator[int] = iter(())
        self.seconds: list[float] = []
        self.turn = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def begin(self, left: Iterator[int]) -> asyncio.Future[None]:
        """Send one request for each item of `left`, which callers may share; done when the last one is answered."""
        self.turn = asyncio.get_running_loop().create_future()
        self._left = left
        self.seconds.clear()
        self._next()
        return self.turn

    def _next(self) -> None:
        if next(self._left, None) is None:
            self.turn.set_result(None)
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count an answer when it is whole; anything but 202 ends the measurement."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._received.find(_LENGTH)
        length = int(self._received[at + len(_LENGTH) : self._received.find(b"\r\n", at)]) if 0 <= at < head else 0
        if len(self._received) < head + 4 + length:
            return
        if not self._received.startswith(ACCEPTED):
            self.turn.set_exception(RuntimeError(self._received[:2_000].decode(errors="replace")))
            return
        self.seconds.append(time.perf_counter() - self._sent_at)
        self._received = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so, if an answer was awaited."""
        if not self.turn.done():
            self.turn.set_exception(ConnectionError(f"the gateway closed the connection ({exc!r})"))


async def ask(port: int, path: str, connections: int, warm_up: int, count: int, *, key: str, body: bytes) -> Answered:
    """Ask that often on that many connections."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Caller(head.encode() + body), "127.0.0.1", port)
        for _ in range(connections)
    ]
    callers = [caller for _, caller in opened]
    # The gateway's caches and pools are warm after this.
    await asyncio.gather(*(caller.begin(iter(range(warm_up))) for caller in callers))
    began, cpu, left = time.perf_counter(), time.process_time(), iter(range(count))
    await asyncio.gather(*(caller.begin(left) for caller in callers))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    waited = [wait * 1e3 for caller in callers for wait in caller.seconds]
    cuts = quantiles(waited, n=100, method="inclusive")
    return Answered(len(waited), took, cuts[49], cuts[98], cpu)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    port, path, *numbers = sys.argv[1:]
    answered = uvloop.run(ask(int(port), path, *map(int, numbers), key=given["key"], body=given["body"].encode()))
    json.dump(asdict(answered), sys.stdout)
