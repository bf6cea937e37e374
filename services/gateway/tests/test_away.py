"""What the gateway answers while PostgreSQL is away, and that nothing hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

import pytest


class Wire:
    """Carries connections to PostgreSQL until it is cut, or holds what they say back."""

    def __init__(self, database_url):
        parts = urlsplit(database_url)
        self.target = (parts.hostname, parts.port or 5432)
        self.state, self.writers = "whole", set()
        self.loop, self.ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(5)
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{user}{'@' if user else ''}127.0.0.1:{self.port}"))

    def _run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()

    async def _carry(self, reader, writer):
        if self.state == "cut":
            writer.close()
            return
        other_reader, other_writer = await asyncio.open_connection(*self.target)
        self.writers |= {writer, other_writer}
        with suppress(OSError):
            await asyncio.gather(self._copy(reader, other_writer), self._copy(other_reader, writer))

    async def _copy(self, reader, writer):
        while data := await reader.read(65536):
            while self.state == "held":  # noqa: ASYNC110 - it changes back and forth
                await asyncio.sleep(0.05)
            writer.write(data)
        writer.close()

    def become(self, state):
        def change():
            self.state = state
            if state == "cut":
                for writer in self.writers:
                    writer.transport.abort()
                self.writers.clear()

        self.loop.call_soon_threadsafe(change)


@pytest.fixture
def wire(settled_url):
    wire = Wire(settled_url)
    yield wire
    wire.become("whole")


REQUESTS = ("/api/v1/tasks", "/api/v1/runs", "/api/v1/tasks/scheduled", "/api/v1/overview", "/api/v1/events")


@pytest.mark.parametrize("state", ["cut", "held"])
def test_without_postgresql_every_answer_is_503_in_time_and_it_recovers(start, bells, wire, state):
    gateway = start(DATABASE_URL=wire.url, GATEWAY_ANSWER_TIMEOUT_SECONDS="2")
    body = {"task": "bells.ring", "args": {"times": 1}}
    assert gateway.post("/api/v1/tasks", body).status_code == 202

    wire.become(state)
    reads = [lambda path=path: gateway.http.get(path) for path in REQUESTS]
    for ask in (*reads, lambda: gateway.post("/api/v1/tasks", body)):
        began = time.monotonic()
        answer = ask()
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"]
        assert time.monotonic() - began < 5
    assert gateway.http.get("/health/live").status_code == 200
    assert gateway.http.get("/").status_code == 200

    wire.become("whole")
    deadline = time.monotonic() + 20
    while gateway.post("/api/v1/tasks", body).status_code != 202:
        assert time.monotonic() < deadline
