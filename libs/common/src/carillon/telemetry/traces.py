"""Traces: one OpenTelemetry trace from the request or the fire, through event and run, to what the run says."""

from __future__ import annotations

import os
import re

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

#: https://www.w3.org/TR/trace-context/: later versions may append to it, and version ff is none.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
#: A collector that is away costs this much at exit, and nothing before.
EXPORT_MILLIS = 3_000


def configure_traces(service: str) -> TracerProvider:
    """Make the process's tracer. Spans are exported when the standard OTLP variables name an endpoint.

    Without one nothing is recorded, but trace ids still travel, so that log lines can be joined. The sampler is the
    standard `OTEL_TRACES_SAMPLER`.
    """
    exports = bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )
    resource = Resource.create({"service.name": service, "service.namespace": "carillon"})
    provider = TracerProvider(resource=resource) if exports else TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    if exports:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 10 MB

        exporter = OTLPSpanExporter(timeout=EXPORT_MILLIS // 1000)
        provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_MILLIS))
    trace.set_tracer_provider(provider)
    return provider


def current_traceparent() -> str | None:
    """The W3C traceparent of the current span, for what leaves the process."""
    return traceparent_of(trace.get_current_span())


def traceparent_of(span: Span) -> str | None:
    """The W3C traceparent of a span."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def context_of(traceparent: str | None) -> Context | None:
    """The context that a W3C traceparent names; None where it names none.

    Every attempt reads one, and OpenTelemetry's own reader takes three times as long.
    """
    if traceparent is None or (parts := _TRACEPARENT.fullmatch(traceparent)) is None:
        return None
    trace_id, span_id, flags = parts.groups()
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def is_left_out(parent: Context, name: str, kind: SpanKind) -> bool:
    """Whether no span below this one would be recorded, so that none has to be made: what follows has its trace anyway.

    A span that is not recorded costs more than a tenth of what else Carillon does for a run.
    """
    above = trace.get_current_span(parent).get_span_context()
    sampler = getattr(trace.get_tracer_provider(), "sampler", None)
    if above.trace_flags.sampled or sampler is None:
        return False
    return sampler.should_sample(parent, above.trace_id, name, kind).decision is Decision.DROP
