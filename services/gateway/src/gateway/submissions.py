"""What may be submitted: the shape of the request, and the run that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from carillon.ids import derived_id, new_id
from carillon.ledger.records import NewRun, Priority
from gateway.errors import Fault, invalid
from gateway.shapes import faults_of, moment

YEAR = timedelta(days=365)
#: How far back `run_at` may lie: a caller's queue may have held the request for a while.
LATE = timedelta(days=1)
MOST_KEY = 255

#: Names that steer Taskiq or a broker, or that a mail or AMQP header would be made of.
RESERVED_LABELS = (
    "ack_type", "bcc", "cc", "correlation_id", "delay", "exchange", "expiration", "max_retries", "priority", "queue",
    "queue_name", "reply_to", "retry_on_error", "routing_key", "schedule", "schedule_id", "task_id", "tenant",
    "timeout", "traceparent", "tracestate", "x-.*",
)  # fmt: skip
_LABEL = rf"^(?!({'|'.join(RESERVED_LABELS)})$)[a-z][a-z0-9_.-]{{0,62}}$"
_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*$"

_OPTIONS: dict[str, Any] = {
    "priority": {
        "description": "Which of two waiting runs of one domain starts first.",
        "enum": ["low", "normal", "high", "urgent", 0, 1, 2, 3],
        "default": "normal",
    },
    "delay": {
        "description": "Seconds from now before it may start; not together with `run_at`.",
        "type": "number",
        "minimum": 0,
        "maximum": YEAR.total_seconds(),
    },
    "run_at": {
        "description": "The moment before which it may not start, at most a year ahead.",
        "type": "string",
        "format": "date-time",
    },
    "expires_at": {
        "description": "The moment after which it is cancelled instead of started.",
        "type": "string",
        "format": "date-time",
    },
    "labels": {
        "description": "Words of your own by which runs can be searched. Names that steer a queue are reserved.",
        "type": "object",
        "maxProperties": 20,
        "propertyNames": {
            "pattern": _LABEL,
            "x-must-be": "named in lower case, and not like what steers a queue or a header (cc, x-..., task_id)",
        },
        "additionalProperties": {
            "type": "string",
            "maxLength": 200,
            "pattern": _NO_CONTROLS,
            "x-must-be": "free of control characters",
        },
    },
}
_TASK = {
    "type": "string",
    "maxLength": 200,
    "pattern": r"^[a-z][a-z0-9_-]*\.[A-Za-z_][A-Za-z0-9_]*$",
    "x-must-be": "the name of a task, such as backup.back_up_database",
}

#: The body of `POST /api/v1/tasks`.
SUBMIT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "task": {**_TASK, "description": "The task's name, as the catalogue has it."},
        "args": {"type": "object", "description": "Its arguments by name, as its schema wants them.", "default": {}},
        **_OPTIONS,
    },
    "required": ["task"],
    "additionalProperties": False,
}
#: Runs in one body.
MOST_RUNS = 1_000
#: The body of `POST /api/v1/tasks/batch`. What is in `tasks` is a single submit, and may have a key of its own.
BATCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tasks": {
            "description": "Runs to submit: all of them, or none when one does not fit.",
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_RUNS,
            "items": {
                **SUBMIT,
                "properties": {
                    **SUBMIT["properties"],
                    "idempotency_key": {
                        "description": "As the header `Idempotency-Key` of a single submit: the same run for both.",
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MOST_KEY,
                        "pattern": "^[ -~]+$",
                        "x-must-be": "of printable ASCII characters",
                    },
                },
            },
        }
    },
    "required": ["tasks"],
    "additionalProperties": False,
}
#: The body of `POST /api/v1/tasks/{domain}/kick`.
KICK: dict[str, Any] = {
    "type": "object",
    "properties": {
        "task": {
            "type": "string",
            "maxLength": 200,
            "pattern": r"^([a-z][a-z0-9_-]*\.)?[A-Za-z_][A-Za-z0-9_]*$",
            "x-must-be": "the name of a task of the domain",
            "description": "A task of the domain, with or without the domain's name; without it, the domain's default.",
        },
        "data": {"type": "object", "description": "The task's arguments by name.", "default": {}},
        **_OPTIONS,
    },
    "additionalProperties": False,
}


def checked(body: object, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The body, if it fits; raises `ProblemError`."""
    faults = faults_of(body, schema)
    if faults or not isinstance(body, dict):
        raise invalid(*faults)
    return body


def batch_in(body: object) -> list[dict[str, Any]]:
    """The entries of a batch, if they fit; raises `ProblemError`. Too many are counted, not looked at."""
    entries = body.get("tasks") if isinstance(body, dict) else None
    if isinstance(entries, list) and len(entries) > MOST_RUNS:
        raise invalid(Fault("/tasks", f"must have at most {MOST_RUNS} items"))
    found: list[dict[str, Any]] = checked(body, BATCH)["tasks"]
    return found


def idempotency_key(values: list[str]) -> str | None:
    """The one `Idempotency-Key`, if there is one; raises `ProblemError`."""
    if not values:
        return None
    if len(values) == 1 and 1 <= len(values[0]) <= MOST_KEY and values[0].isascii() and values[0].isprintable():
        return values[0]
    detail = f"must be given once, as 1 to {MOST_KEY} printable ASCII characters"
    raise invalid(Fault("Idempotency-Key", detail))


def new_run(
    task: Mapping[str, Any],
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    actor: str,
    key: str | None,
    traceparent: str | None,
    place: Sequence[str] = (),
) -> NewRun:
    """The run that a checked request asks for. One actor's key and task are always the same run.

    `place` sets runs apart that share a key: those of one batch. Raises `ProblemError` for moments that do not fit.
    """
    run_at, expires_at = _times(options, datetime.now(UTC))
    name = task["name"]
    return NewRun(
        id=new_id() if key is None else derived_id("key", actor, name, key, *place),
        domain=task["domain"],
        task=name,
        args=orjson.dumps(arguments).decode(),
        labels=options.get("labels", {}),
        priority=_priority(options.get("priority", "normal")),
        run_at=run_at,
        expires_at=expires_at,
        idempotency_key=key,
        actor=actor,
        traceparent=traceparent,
    )


def _priority(given: str | float) -> int:
    return Priority[given.upper()] if isinstance(given, str) else int(given)


def _times(options: Mapping[str, Any], now: datetime) -> tuple[datetime | None, datetime | None]:
    if "delay" in options and "run_at" in options:
        raise invalid(Fault("/delay", "cannot be given together with run_at"))
    run_at = None
    if options.get("delay"):
        run_at = now + timedelta(seconds=options["delay"])
    elif "run_at" in options:
        run_at = _within("/run_at", moment(options["run_at"]), now - LATE, now + YEAR)
    expires_at = None
    if "expires_at" in options:
        expires_at = _within("/expires_at", moment(options["expires_at"]), run_at or now, now + 2 * YEAR)
    return run_at, expires_at


def _within(pointer: str, given: datetime, earliest: datetime, latest: datetime) -> datetime:
    if not earliest <= given <= latest:
        span = f"{earliest:%Y-%m-%dT%H:%M:%SZ} and {latest:%Y-%m-%dT%H:%M:%SZ}"
        raise invalid(Fault(pointer, f"must lie between {span}"))
    return given.astimezone(UTC)
