"""The HTTP server of every process: health, metrics, AsyncAPI, and a service's own routes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
import uvicorn
from litestar import Litestar, Response, get
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.types import ASGIApp, ControllerRouterHandler, ExceptionHandlersMap, Guard
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from carillon.errors import ConfigurationError
from carillon.platform import Platform
from carillon.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Answers in flight when the process stops may take this long.
SHUTDOWN_SECONDS = 5
#: A readiness probe that takes longer is an answer in itself.
PROBE_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Web:
    """The HTTP surface of a service that has more than operations. Its routes win over those of every process."""

    routes: Sequence[ControllerRouterHandler]
    dependencies: Mapping[str, Provide] = field(default_factory=dict)
    guards: Sequence[Guard] = ()
    exception_handlers: ExceptionHandlersMap = field(default_factory=dict)
    openapi: OpenAPIConfig | None = None
    #: Goes around the whole application, so that it also sees what no route takes.
    around: Callable[[ASGIApp], ASGIApp] | None = None


class OperationsServer:
    """Serves one process. Without routes of its own it is what a prober, a scraper and an operator need."""

    def __init__(
        self,
        name: str,
        platform: Platform,
        metrics: Metrics,
        address: tuple[str, int],
        web: Web,
        probes: Sequence[Callable[[], str | None]] = (),
    ) -> None:
        self._name = name
        self._platform = platform
        self._metrics = metrics
        self._address = address
        self._probes = probes
        taken = {path for route in web.routes if isinstance(route, HTTPRouteHandler) for path in route.paths}
        app = Litestar(
            [*web.routes, *(handler for handler in self._operations() if not handler.paths & taken)],
            dependencies=web.dependencies,
            guards=web.guards,
            exception_handlers=web.exception_handlers,
            openapi_config=web.openapi,
            logging_config=None,
        )
        self._app = app if web.around is None else web.around(app)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; raises `ConfigurationError` when the port is taken."""
        listener = self._listen()
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            server_header=False,
        )
        server = _Server(config)
        log.info("listening", url="http://{}:{}".format(*listener.getsockname()[:2]))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopped = asyncio.create_task(stop.wait())
        with listener:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            stopped.cancel()
            await serving

    def _listen(self) -> socket.socket:
        host, port = self._address
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self._address)
        except OSError as error:
            listener.close()
            message = f"{self._name} cannot listen on {host}:{port} ({error.strerror}); set {self._name.upper()}_PORT"
            raise ConfigurationError(message) from error
        return listener

    def _operations(self) -> list[HTTPRouteHandler]:
        platform, metrics, name, probes = self._platform, self._metrics, self._name, self._probes

        @get("/health/live", include_in_schema=False)
        async def live() -> dict[str, str]:
            return {"status": "live"}

        @get("/health/ready", include_in_schema=False)
        async def ready() -> Response[dict[str, Any]]:
            faults = [probe() for probe in probes]
            missing = [*await missing_of(platform), *(fault for fault in faults if fault is not None)]
            body = {"status": "not ready" if missing else "ready", "missing": missing}
            return Response(body, status_code=503 if missing else 200)

        @get("/metrics", include_in_schema=False)
        async def scrape() -> Response[bytes]:
            return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

        @get("/asyncapi.json", include_in_schema=False)
        async def events() -> dict[str, Any]:
            rows = await platform.catalogue.domains()
            return next((row["asyncapi"] for row in rows if row["name"] == name), {})

        return [live, ready, scrape, events]


async def missing_of(platform: Platform) -> list[str]:
    """What keeps this process from working, as sentences."""
    missing = []
    try:
        async with asyncio.timeout(PROBE_SECONDS), platform.engine.connect() as connection:
            await connection.execute(text("select 1"))
    except Exception as error:  # noqa: BLE001 - the answer is the point
        missing.append(f"PostgreSQL does not answer ({type(error).__name__}); check DATABASE_URL and the server")
    fault = await platform.transport.fault()
    return missing if fault is None else [*missing, fault]


class _Server(uvicorn.Server):
    """A server that leaves signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing: the service stops everything together."""
        yield
