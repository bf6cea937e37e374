"""Logs: one line per fact, JSON for machines and readable in a terminal, with run, task, domain and trace id."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import orjson
import structlog
from opentelemetry import trace
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

from carillon.run import attempted_run
from carillon.telemetry.excerpt import ExcerptHandler

#: Libraries whose chatter says nothing that Carillon does not say itself.
QUIET = ("aio_pika", "aiormq", "apscheduler", "faststream", "taskiq", "uvicorn", "alembic", "httpx2", "httpcore2")

#: Without local variables: they hold arguments, addresses and passwords.
_EXCEPTIONS = ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def configure_logs(service: str, *, style: Literal["json", "console"] | None, level: str) -> None:
    """Send every log line of this process, from Carillon and from libraries, to standard output in one style."""
    people = sys.stdout.isatty() if style is None else style == "console"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _attempt,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
        _trace_id,
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if people
        else [_EXCEPTIONS, structlog.processors.JSONRenderer(serializer=_json)]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    # Before the other, which turns the facts of a line into text.
    logging.basicConfig(handlers=[ExcerptHandler(), handler], level=level.upper(), force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _named(service: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("domain", service)
        return event

    return add


def _attempt(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    run = attempted_run.get()
    if run is not None:
        for name, value in (("run", str(run.id)), ("task", run.task), ("attempt", run.attempt)):
            event.setdefault(name, value)
    return event


def _trace_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


def _json(value: object, **_: object) -> str:
    return orjson.dumps(value, default=str).decode()
