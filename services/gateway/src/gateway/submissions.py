"""What may be submitted: the shape of the request, and the run that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

import orjson

from carillon.bounds import (
    CALLBACK_URL,
    LABEL,
    LABEL_MUST,
    LONGEST,
    MOST_KEY,
    MOST_LABEL,
    MOST_LABELS,
    MOST_NEEDS,
    MOST_URL,
    NO_CONTROLS,
    OnConflict,
    Otherwise,
    Until,
    When,
)
from carillon.errors import InvalidOptionError
from carillon.ids import keyed_id, new_id
from carillon.ledger.records import NewRun, Priority
from carillon.options import after_of, priority_in, unique_of
from carillon.shapes import faults_of
from carillon.times import times_in
from gateway.errors import Fault, invalid

_SECONDS: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": LONGEST.total_seconds()}
_KEY: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MOST_KEY,
    "pattern": NO_CONTROLS,
    "x-must-be": "free of control characters",
}
_UNIQUE: dict[str, Any] = {
    "description": "One run of the task at a time for a key. The answer names the run that has it. Without "
    "it, what the task's owner declared holds.",
    "type": "object",
    "properties": {
        "key": {"description": "Without it, the arguments are the key.", **_KEY},
        "until": {
            "description": "For how long a run keeps others out: until it has started, or until it has ended.",
            "enum": [*get_args(Until)],
            "default": "ended",
        },
        "window": {"description": "Keeps others out for so many seconds, whatever became of it.", **_SECONDS},
        "on_conflict": {
            "description": "keep: the answer is the run that is there, and `created` is false. replace: that one is "
            "cancelled if it still waits. reject: 409, with the run in `Location`.",
            "enum": [*get_args(OnConflict)],
            "default": "keep",
        },
    },
    "additionalProperties": False,
}
_AFTER: dict[str, Any] = {
    "description": "Waits until other runs, which were accepted before, have ended.",
    "type": "object",
    "properties": {
        "runs": {
            "description": "Their ids.",
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_NEEDS,
            "items": {"type": "string", "format": "uuid"},
        },
        "when": {
            "description": "succeeded: all of them completed. ended: all of them ended, however. any: one completed.",
            "enum": [*get_args(When)],
            "default": "succeeded",
        },
        "otherwise": {
            "description": "What happens when that cannot come true any more; `run` then waits for all of them to end.",
            "enum": [*get_args(Otherwise)],
            "default": "cancel",
        },
        "delay": {"description": "Seconds that it still waits once it may go.", **_SECONDS},
    },
    "required": ["runs"],
    "additionalProperties": False,
}
_OPTIONS: dict[str, Any] = {
    "priority": {
        "description": "Which of two waiting runs of one domain starts first. Where it is not said, the priority that "
        "the task was declared with.",
        "enum": [*(priority.name.lower() for priority in Priority), *map(int, Priority)],
        "default": "normal",
    },
    "delay": {"description": "Seconds from now before it may start; not together with `run_at`.", **_SECONDS},
    "run_at": {
        "description": "The moment before which it may not start, at most a year ahead.",
        "type": "string",
        "format": "date-time",
    },
    "expires_in": {
        "description": "Seconds from now after which it is cancelled instead of started; not together with "
        "`expires_at`.",
        **_SECONDS,
    },
    "expires_at": {
        "description": "The moment after which it is cancelled instead of started.",
        "type": "string",
        "format": "date-time",
    },
    "deadline": {
        "description": "Seconds from now after which it is ended, whether it waits or executes; passed down to what it "
        "submits. Not together with `deadline_at`.",
        **_SECONDS,
    },
    "deadline_at": {
        "description": "The moment by which it is ended, whether it waits or executes.",
        "type": "string",
        "format": "date-time",
    },
    "idempotency_key": {
        "description": "As the header `Idempotency-Key`: the same key, task and arguments are one run, if `after` (but "
        "for its delay), `callback_url` and `unique.key` are the same too.",
        **_KEY,
    },
    "callback_url": {
        "description": "Is sent a signed webhook when the run has ended.",
        "type": "string",
        "maxLength": MOST_URL,
        "pattern": CALLBACK_URL,
        "x-must-be": "an http or https URL that names a host and holds no password",
    },
    "unique": _UNIQUE,
    "after": _AFTER,
    "labels": {
        "description": "Words of your own by which runs can be searched, beside those that the task was declared with. "
        "Names that steer a queue are reserved.",
        "type": "object",
        "maxProperties": MOST_LABELS,
        "propertyNames": {
            "pattern": LABEL,
            "x-must-be": LABEL_MUST,
        },
        "additionalProperties": {
            "type": "string",
            "maxLength": MOST_LABEL,
            "pattern": NO_CONTROLS,
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
#: The body of `POST /api/v1/tasks/batch`. What is in `tasks` is a single submit.
BATCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tasks": {
            "description": "Runs to submit: all of them, or none when one does not fit.",
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_RUNS,
            "items": SUBMIT,
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
    place: int | None = None,
) -> NewRun:
    """The run that a checked request asks for. One actor's key and task are always the same run.

    `place` sets runs apart that share a key: those of one batch, counted from 0. Raises `ProblemError` for options that
    do not fit.
    """
    name = task["name"]
    policy = task["policy"]
    said = {"unique": policy.get("unique"), "priority": policy.get("priority", Priority.NORMAL)} | dict(options)
    try:
        times = times_in(said, datetime.now(UTC))
        return NewRun(
            id=new_id() if key is None else keyed_id(name, key, actor=actor, place=place),
            domain=task["domain"],
            task=name,
            args=orjson.dumps(arguments).decode(),
            labels=policy.get("labels", {}) | said.get("labels", {}),
            priority=priority_in(said),
            run_at=times.run_at,
            expires_at=times.expires_at,
            deadline_at=times.deadline_at,
            idempotency_key=key,
            callback_url=said.get("callback_url"),
            unique=None if said["unique"] is None else unique_of(said["unique"]),
            after=after_of(said["after"]) if "after" in said else None,
            actor=actor,
            traceparent=traceparent,
        )
    except InvalidOptionError as error:
        raise invalid(Fault(f"/{error.option.replace('.', '/')}", f"must {error.must}")) from None
