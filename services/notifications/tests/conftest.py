"""Real neighbours for the tests of notifications: a database, a mail server, a receiver of webhooks."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SMTPSession  # noqa: N811 - its name there is a protocol's
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url
from notifications.models import deliveries


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    await migrate(database_url, "notifications.migrations")
    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.begin() as connection:
        await connection.execute(deliveries.delete())
    yield engine
    await engine.dispose()


@dataclass
class MailServer:
    """Keeps what it takes; refuses the recipients it was told to, as often as it was told to."""

    port: int = 0
    taken: list[EmailMessage] = field(default_factory=list)
    #: Recipient to the answers it still gives before it accepts.
    answers: dict[str, list[str]] = field(default_factory=dict)
    recipients: list[str] = field(default_factory=list)
    logins: int = 0

    async def handle_RCPT(  # noqa: N802 - the name aiosmtpd calls
        self, _: SMTPSession, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer RCPT TO."""
        if self.answers.get(address):
            return self.answers[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTPSession, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep the message."""
        message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.taken.append(message)
        self.recipients.extend(envelope.rcpt_tos)
        return "250 kept"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer(port=_free_port())
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    yield server
    controller.stop()


PASSWORD = b"correct horse"


@pytest.fixture
def guarded_mail_server() -> Iterator[MailServer]:
    def knows(
        _server: object, _session: object, _envelope: object, _mechanism: str, login: LoginPassword
    ) -> AuthResult:
        known = (login.login, login.password) == (b"carillon", PASSWORD)
        server.logins += known
        return AuthResult(success=known, handled=False)

    server = MailServer(port=_free_port())
    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=server.port,
        authenticator=knows,
        auth_require_tls=False,
    )
    controller.start()
    yield server
    controller.stop()


@dataclass
class Receiver:
    """Keeps the requests it gets and answers as it was told to."""

    port: int = 0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    #: Status, headers and body of the next answers; 204 when none is left. A body of None never ends.
    answers: list[tuple[int, dict[str, str], bytes | None]] = field(default_factory=list)
    #: How many bytes of an endless body were written before the sender hung up.
    written: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)

    paths: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What it is called at."""
        return f"{self.origin}/hook"

    def ids(self) -> list[str]:
        """Return the webhook-id of each request."""
        return [headers["webhook-id"] for headers, _ in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            state.paths.append(self.path)
            status, headers, answer = state.answers.pop(0) if state.answers else (204, {}, b"")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if answer is not None:
                self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self._write(answer)

        def _write(self, answer: bytes | None) -> None:
            if answer is not None:
                self.wfile.write(answer)
                return
            try:
                while state.written < 1 << 30:
                    state.written += self.wfile.write(bytes(65536))
            except OSError:
                self.close_connection = True
            state.hung_up.set()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def closed_port() -> int:
    return _free_port()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
