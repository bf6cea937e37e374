"""One attempt while it executes: what middlewares see and decide."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from taskiq import TaskiqMessage

from carillon import clock
from carillon.contracts import Event
from carillon.errors import Cancelled, PermanentError
from carillon.jsonb import holds_nul, loses_numbers
from carillon.ledger.records import Delivery, State
from carillon.run import Run
from carillon.task import Task

#: No result is larger. One beyond 256 KiB lies in storage (`carillon.stored_results`); one beyond this is a file, which
#: the task puts into storage itself.
MOST_RESULT_BYTES = 64 * 2**20
#: Characters kept of an error's message and of its traceback.
MOST_MESSAGE = 2_000
MOST_TRACEBACK = 8_000
#: The attribute of an error that was raised in a child process: there it was described already.
TOLD = "__carillon_told__"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a run after an attempt."""

    state: State
    #: completed, partial, failed, retried, snoozed, cancelled or fenced.
    outcome: str
    delay: timedelta = timedelta(0)
    counted: bool = True


COMPLETED = Verdict(State.COMPLETED, "completed")
PARTIAL = Verdict(State.PARTIAL, "partial")
FAILED = Verdict(State.FAILED, "failed")
CANCELLED = Verdict(State.CANCELLED, "cancelled")
#: The ledger no longer expected this attempt: another worker has the run, or it was ended otherwise.
FENCED = Verdict(State.RUNNING, "fenced")
#: It failed, and the retry middleware has not said yet what that means.
UNDECIDED = Verdict(State.RUNNING, "undecided")


@dataclass(slots=True)
class Execution:
    """The state of one attempt. Middlewares reach it as `message.execution`."""

    delivery: Delivery
    #: None when this domain does not know the task.
    task: Task[..., Any] | None
    run: Run
    #: How it ended; the retry middleware decides about failures.
    verdict: Verdict = COMPLETED
    #: As JSON text, or what stands for it when it lies in storage.
    result: str | None = None
    is_stored: bool = False
    error: str | None = None

    @property
    def counted_attempt(self) -> int:
        """The number of this attempt as the retry policy counts."""
        return self.delivery.attempt - self.delivery.uncounted

    @property
    def next_run_at(self) -> datetime | None:
        """When the next attempt is due, if there is one."""
        return None if self.verdict.state.is_terminal else clock.now() + self.verdict.delay


class RunMessage(TaskiqMessage):  # type: ignore[no-redef] # the plugin trips over the field `kwargs`
    """A Taskiq message that knows its attempt."""

    execution: Any = None


Model = TypeVar("Model", bound=BaseModel)


def assembled(model: type[Model], **fields: object) -> Model:
    """What `model.model_construct(**fields)` makes, where every field is given and none is private.

    Pydantic's own looks at each field's aliases and defaults, which for the two models of an attempt costs a tenth of
    all that Carillon does for a run.
    """
    made = model.__new__(model)
    for name, value in (
        ("__dict__", fields),
        ("__pydantic_fields_set__", set(fields)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(made, name, value)
    return made


def result_json(returned: object) -> str:
    """What a task returned, as JSON text; raises `PermanentError` when it cannot be kept."""
    try:
        encoded = orjson.dumps(returned, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        message = f"the result cannot be kept ({error}); return JSON types, pydantic models or events"
        raise PermanentError(message) from error
    if len(encoded) > MOST_RESULT_BYTES:
        message = (
            f"the result has {len(encoded)} bytes, the most is {MOST_RESULT_BYTES}; put it into storage as a file, and "
            "return its key"
        )
        raise PermanentError(message)
    if loses_numbers(returned, encoded):
        message = "the result holds a float that is NaN or infinite, which JSON has not; return None, or a text"
        raise PermanentError(message)
    if holds_nul(encoded):
        message = "the result holds the character NUL, which PostgreSQL cannot keep"
        raise PermanentError(message)
    return encoded.decode()


def error_json(error: BaseException) -> str:
    """An error as the ledger keeps it: type, message, traceback, and a fingerprint that groups its like.

    Of a cancellation only who wanted it and why is told: where the code stood is no fault of it.
    """
    if isinstance(error, Cancelled):
        cancelled = {"type": "Cancelled", "message": _keepable(text_of(error)[:MOST_MESSAGE])}
        return orjson.dumps(cancelled).decode()
    if (told := vars(error).get(TOLD)) is not None:
        return str(told)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].name}" if frames else ""
    kind = type(error).__name__
    text = "".join(traceback.format_exception(error))[-MOST_TRACEBACK:]
    fields = {
        "type": kind,
        "message": text_of(error)[:MOST_MESSAGE],
        "traceback": text,
        "fingerprint": sha256(f"{kind}|{where}".encode()).hexdigest()[:16],
    }
    kept: dict[str, object] = {name: _keepable(value) for name, value in fields.items()}
    if isinstance(error, PermanentError) and error.leaves_nothing:
        kept["permanent"] = True
    return orjson.dumps(kept).decode()


def text_of(error: BaseException) -> str:
    """What an error says. Its class may be anybody's, and an attempt must end whatever that does."""
    if (told := vars(error).get(TOLD)) is not None:
        return str(orjson.loads(told).get("message", ""))
    try:
        return str(error)
    except Exception as failed:  # noqa: BLE001 - see above
        return f"(its text cannot be had: {type(failed).__name__})"


def _keepable(text: str) -> str:
    """Without what PostgreSQL cannot keep: NUL, and the half characters of file names that are no UTF-8."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "backslashreplace").decode()


def _plain(value: object) -> object:
    if isinstance(value, Event | BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")
