"""What goes around every request: an id, a span, metrics, security headers, and a deadline."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, Counter, Histogram

from carillon.ids import new_id
from carillon.telemetry.traces import context_of
from gateway.errors import HEADERS_TOO_LARGE, INTERNAL, UNAVAILABLE, ProblemError
from gateway.problems import MEDIA_TYPE, body_of

log = structlog.get_logger(__name__)

#: Listeners stay.
LIVE = "/api/v1/live"
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
MOST_HEADERS = 100
MOST_HEADER_BYTES = 32 * 1024
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,64}$")
#: A handler may set its own value for any of these.
HEADERS = {
    b"content-security-policy": b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class RequestMetrics:
    """The numbers of the HTTP surface. Routes are templates, so that label values stay few."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "gateway_requests",
            "How many requests were answered, by route, method and status.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "gateway_request_seconds",
            "How long answers took, by route and method; the live stream is left out.",
            ["route", "method"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )


class Edge:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, *, seconds: float) -> None:
        self._app = app
        self._metrics = metrics
        self._seconds = seconds
        self._tracer = trace.get_tracer("carillon.gateway")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan messages pass through."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        method = scope["method"] if scope["method"] in METHODS else "other"
        sent = _Sent(send, _request_id(headers))
        scope.setdefault("state", {})["request_id"] = sent.request_id
        caller = context_of(headers.get(b"traceparent", b"").decode("latin-1"))
        span = self._tracer.start_span(method, context=caller, kind=SpanKind.SERVER)
        token, began = otel.attach(trace.set_span_in_context(span)), time.perf_counter()
        try:
            await self._bounded(scope, receive, sent)
        finally:
            otel.detach(token)
            route = scope.get("path_template") or "unmatched"
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.request.method": method, "http.route": route})
            span.set_attribute("http.response.status_code", sent.status)
            if sent.status >= INTERNAL.status:
                span.set_status(StatusCode.ERROR)
            span.end()
            self._metrics.requests.labels(route, method, str(sent.status)).inc()
            if scope["path"] != LIVE:
                self._metrics.seconds.labels(route, method).observe(time.perf_counter() - began)

    async def _bounded(self, scope: Scope, receive: Receive, sent: _Sent) -> None:
        headers = list(scope["headers"])
        if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > MOST_HEADER_BYTES:
            detail = f"at most {MOST_HEADERS} headers with {MOST_HEADER_BYTES} bytes are taken"
            await sent.refuse(ProblemError(HEADERS_TOO_LARGE, detail, headers={"Connection": "close"}), scope["path"])
            return
        try:
            async with asyncio.timeout(None if scope["path"] == LIVE else self._seconds):
                await self._app(scope, receive, sent)
        except TimeoutError:
            detail = f"no answer after {self._seconds:g} seconds; send it again, a submit with the same Idempotency-Key"
            await sent.refuse(ProblemError(UNAVAILABLE, detail, headers={"Retry-After": "2"}), scope["path"])
        except Exception:
            log.exception("request failed outside its route", request_id=sent.request_id)
            await sent.refuse(ProblemError(INTERNAL, "something unforeseen happened"), scope["path"])


class _Sent:
    """A `send` that adds headers to the answer and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._started = False
        self.request_id = request_id
        #: What is counted when the caller left before an answer began.
        self.status = 499

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            given = list(message["headers"])
            present = {name.lower() for name, _ in given}
            extra = [(name, value) for name, value in HEADERS.items() if name not in present]
            message["headers"] = [*given, *extra, (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    async def refuse(self, problem: ProblemError, path: str) -> None:
        """Answer with a problem, unless an answer began already."""
        if self._started:
            return
        body = body_of(problem, path, self.request_id)
        named: dict[str, str] = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
        headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self({"type": "http.response.start", "status": problem.kind.status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": False})


def around(metrics: RequestMetrics, seconds: float) -> Callable[[Any], ASGIApp]:
    """What `Web.around` takes."""
    return lambda app: Edge(app, metrics, seconds=seconds)


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.match(given) and given == given.strip() else str(new_id())
