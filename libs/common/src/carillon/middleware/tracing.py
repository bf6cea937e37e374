"""Tracing: a span for every submit and every attempt, in the trace of what caused it."""

from __future__ import annotations

from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from carillon.telemetry.traces import context_of, is_left_out, traceparent_of

#: The label that carries the W3C traceparent from submit to worker.
LABEL = "traceparent"


class TracingMiddleware(TaskiqMiddleware):
    """The current span while a task executes is its attempt's, so what it says and submits joins the trace."""

    def __init__(self) -> None:
        super().__init__()
        self._tracer = trace.get_tracer("carillon")

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Mark the submit in the trace, and let the run join it."""
        span = self._tracer.start_span(f"submit {message.task_name}", kind=SpanKind.PRODUCER)
        traceparent = traceparent_of(span)
        span.end()
        if traceparent is not None:
            message.labels[LABEL] = traceparent
        return message

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Begin the attempt's span and make it current."""
        execution = message.execution  # type: ignore[attr-defined]
        parent = context_of(execution.delivery.traceparent)
        if parent is not None and is_left_out(parent, message.task_name, SpanKind.CONSUMER):
            otel_context.attach(parent)
            return message
        span = self._tracer.start_span(message.task_name, context=parent, kind=SpanKind.CONSUMER)
        if span.is_recording():
            span.set_attribute("messaging.system", "carillon")
            span.set_attribute("carillon.run_id", message.task_id)
            span.set_attribute("carillon.attempt", execution.delivery.attempt)
        # Each attempt has an asyncio task, and thereby a context, of its own: there is nothing to detach from.
        otel_context.attach(trace.set_span_in_context(span))
        return message

    def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:  # noqa: ARG002
        """Record the error on the span."""
        span = trace.get_current_span()
        if span.is_recording():
            span.record_exception(exception)
            span.set_status(Status(StatusCode.ERROR, str(exception)[:500]))

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:  # noqa: ARG002
        """End the span."""
        trace.get_current_span().end()
