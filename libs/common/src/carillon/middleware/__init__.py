"""The middlewares every worker has, outermost first: retry, metrics, tracing, tracking."""

from __future__ import annotations

from collections.abc import Sequence

from taskiq import TaskiqMiddleware

from carillon.errors import ConfigurationError
from carillon.middleware.metrics import MetricsMiddleware
from carillon.middleware.retry import RetryMiddleware
from carillon.middleware.tracing import TracingMiddleware
from carillon.middleware.tracking import TrackingMiddleware
from carillon.telemetry.metrics import Metrics

ORDER = (RetryMiddleware, MetricsMiddleware, TracingMiddleware, TrackingMiddleware)

__all__ = ["ORDER", "MetricsMiddleware", "RetryMiddleware", "TracingMiddleware", "TrackingMiddleware", "check", "stack"]


def stack(metrics: Metrics, extra: Sequence[TaskiqMiddleware] = ()) -> list[TaskiqMiddleware]:
    """The four, and a service's own inside them."""
    return [RetryMiddleware(), MetricsMiddleware(metrics), TracingMiddleware(), TrackingMiddleware(), *extra]


def check(middlewares: Sequence[TaskiqMiddleware]) -> None:
    """Refuse another order: retry decides last, and tracking writes what all others have decided.

    Raises `ConfigurationError` with the order that was found.
    """
    found = [type(middleware) for middleware in middlewares[: len(ORDER)]]
    if found != list(ORDER):
        names = ", ".join(kind.__name__ for kind in found) or "none"
        wanted = ", ".join(kind.__name__ for kind in ORDER)
        message = f"the first middlewares must be {wanted}, in this order; found {names}"
        raise ConfigurationError(message)
