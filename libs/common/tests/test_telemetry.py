"""What a process tells: one trace through everything a request causes, JSON log lines, and no secrets in them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import SecretStr

from carillon.migrations import migrate
from carillon.settings import PlatformSettings
from carillon.telemetry.traces import context_of, current_traceparent, is_left_out

HERE = Path(__file__).parent
#: What the process in `traced_shop` runs because of its one request.
CAUSED = {
    "shop.pack_order",
    "shop.thank_customer",
    "shop.ship_order",
    "shop.stumble",
    "shop.talk",
    "shop.talk_from_a_thread",
    "shop.betray",
}


class Collector:
    """An OpenTelemetry collector that keeps spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def keep(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


@pytest.fixture(scope="module")
def black_hole() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def environment(settings: PlatformSettings, endpoint: str | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "RABBIT_"))}
    found = inherited | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "STORAGE_URL": settings.storage_url,
        "RABBIT_QUEUE_PREFIX": settings.rabbit_queue_prefix,
        "CARILLON_LOG_FORMAT": "json",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
    }
    if settings.rabbit_url is not None:
        found["RABBIT_URL"] = settings.rabbit_url.get_secret_value()
    if endpoint is not None:
        found["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    return found


async def shop_process(settings: PlatformSettings, endpoint: str | None) -> tuple[list[dict[str, Any]], str]:
    """The log lines and the trace id of a process that ran to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "traced_shop.py"),
        env=environment(settings, endpoint),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert err == b""
    lines = [json.loads(line) for line in out.decode().splitlines()]
    return lines[:-1], lines[-1]["trace_id"]


@pytest.mark.real("other processes")
async def test_one_trace_holds_everything_that_a_request_causes(platform, settings, collector):
    _, trace_id = await shop_process(settings, collector.url)

    spans = {span.name: span for span in collector.spans if span.trace_id.hex() == trace_id}
    ids = {span.span_id: name for name, span in spans.items()}
    parents = {name: ids.get(span.parent_span_id) for name, span in spans.items()}
    assert spans.keys() == CAUSED | {"request"}
    assert parents.pop("shop.ship_order") == "shop.pack_order"
    assert parents.pop("request") is None
    assert set(parents.values()) == {"request"}
    assert collector.services == {"shop"}
    stumbles = [span for span in collector.spans if span.name == "shop.stumble"]
    assert sorted(span.status.code for span in stumbles) == [0, 2]
    attributes = {a.key: a.value.string_value or a.value.int_value for a in spans["shop.talk"].attributes}
    assert attributes.keys() == {"messaging.system", "carillon.run_id", "carillon.attempt"}


@pytest.fixture(scope="module")
def alone(new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> PlatformSettings:
    """A ledger of its own, without RabbitMQ: what these tests look at does not depend on the transport."""
    url = new_database()
    asyncio.run(migrate(url, "carillon.ledger.migrations"))
    return PlatformSettings(database_url=SecretStr(url), storage_url=str(tmp_path_factory.mktemp("storage")))


@pytest.fixture(scope="module")
def told(alone: PlatformSettings, black_hole: str) -> tuple[list[dict[str, Any]], str, float]:
    """What a process told whose collector never answers: its lines, its trace id, and when it had exited."""
    lines, trace_id = asyncio.run(shop_process(alone, black_hole))
    return lines, trace_id, time.time()


def test_a_collector_that_never_answers_delays_nothing_but_the_exit_and_that_a_little(told):
    lines, _, exited_at = told

    stopped = datetime.fromisoformat(next(line for line in lines if line["event"] == "worker stopped")["timestamp"])
    started = datetime.fromisoformat(next(line for line in lines if line["event"] == "worker started")["timestamp"])
    assert (stopped - started).total_seconds() < 5
    assert exited_at - stopped.timestamp() < 10


def test_every_line_is_json_and_those_of_a_run_say_which(told):
    lines, trace_id, _ = told

    spoken = {line["event"]: line for line in lines}
    within = [line for line in lines if "run" in line]
    assert {"talked", "talked from a thread", "betrayed", "attempt retried"} <= {line["event"] for line in within}
    for line in within:
        assert line.keys() >= {"run", "task", "domain", "trace_id", "level", "timestamp", "attempt"}
        assert (line["domain"], line["trace_id"]) == ("shop", trace_id)
    assert spoken["talked"]["task"] == "shop.talk"
    assert spoken["talked from a thread"]["task"] == "shop.talk_from_a_thread"
    assert all(line.keys() >= {"event", "level", "timestamp", "domain"} for line in lines)


def test_an_error_in_the_log_shows_where_it_was_and_no_local_variable(told):
    lines, _, _ = told

    betrayed = next(line for line in lines if line["event"] == "betrayed")
    (error,) = betrayed["exception"]
    assert (error["exc_type"], error["frames"][-1]["name"]) == ("KeyError", "betray")
    assert "hunter2" not in json.dumps(lines)


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("traceparent", [f"00-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01-more"])
def test_a_traceparent_is_read_as_opentelemetry_reads_it(traceparent):
    read = trace.get_current_span(context_of(traceparent)).get_span_context()

    reference = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, context=Context())
    assert read == trace.get_current_span(reference).get_span_context()
    assert read.is_remote


@pytest.mark.parametrize(
    "traceparent",
    [
        None, "", "rubbish", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", "x" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_traceparent_is_no_parent(traceparent):
    parent = trace.get_current_span(context_of(traceparent)).get_span_context()

    assert not parent.is_valid
    assert current_traceparent() is None


@pytest.mark.parametrize(
    ("sampler", "below_what_is_not_recorded", "below_what_is"),
    [
        (ParentBased(ALWAYS_ON), True, False),
        # What `OTEL_TRACES_SAMPLER=parentbased_traceidratio` is.
        (ParentBasedTraceIdRatio(1.0), True, False),
        (ALWAYS_OFF, True, False),
        (ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON), False, False),
        # These two decide for themselves, whatever the parent's is.
        (ALWAYS_ON, False, False),
        (TraceIdRatioBased(1.0), False, False),
    ],
)
def test_a_span_is_left_out_only_where_none_would_be_recorded(
    monkeypatch, sampler: Sampler, below_what_is_not_recorded, below_what_is
):
    provider = TracerProvider(sampler=sampler)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    trace_id, span_id = "a" * 32, "b" * 16

    found = {flag: context_of(f"00-{trace_id}-{span_id}-{flag}") for flag in ("00", "01")}
    made = {flag: provider.get_tracer("test").start_span("x", context=found[flag]).is_recording() for flag in found}

    left_out = {flag: is_left_out(found[flag], "x", SpanKind.CONSUMER) for flag in found}

    assert left_out == {"00": below_what_is_not_recorded, "01": below_what_is}
    assert not (left_out["00"] and made["00"])
