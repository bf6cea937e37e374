"""A collector for traces on a free loopback port: it answers as a real one does, and only counts what it gets."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and throws it away."""

    daemon_threads = True
    requests = 0
    received_bytes = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: the faults of the fault matrix reset connections on purpose."""

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Collector
    timeout = 10

    def do_POST(self) -> None:
        """Take one batch of spans."""
        self.server.received_bytes += len(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.server.requests += 1
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name is the standard library's
        """Nothing: a line for each batch would be noise."""


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector in a thread of its own."""
    with Collector(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)
