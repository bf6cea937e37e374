"""Every error as an RFC 9457 problem: what happened, what to do, and the request's id; never a stack trace."""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from asyncpg import PostgresError
from litestar import Request, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from carillon.errors import (
    OTHER_WORK,
    CarillonError,
    IdempotencyConflictError,
    NotFoundError,
    PlatformUnavailableError,
    ReplayConflictError,
    RunStateError,
    SearchTooWideError,
    UnknownTaskError,
)
from carillon.ledger.group_commit import SERVER_AWAY
from gateway.errors import (
    CONFLICT,
    INTERNAL,
    INVALID,
    KEY_REUSED,
    MALFORMED,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UNAVAILABLE,
    Fault,
    Kind,
    ProblemError,
    invalid,
)

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
#: SQLSTATE classes that say nothing about the request: connection, resources, shutdown.
_AWAY_CLASSES = ("08", "53", "57P")
_BY_STATUS = {400: MALFORMED, 404: NOT_FOUND, 405: METHOD_NOT_ALLOWED, 422: INVALID, 503: UNAVAILABLE}
#: What the library refuses in a sentence that is fit for whoever asked over HTTP.
_REFUSALS: dict[type[CarillonError], Kind] = {
    NotFoundError: NOT_FOUND,
    ReplayConflictError: CONFLICT,
    RunStateError: CONFLICT,
    UnknownTaskError: CONFLICT,
}


def problem_of(error: Exception) -> ProblemError:
    """The problem that an exception is."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, CarillonError) and (refusal := _refusal_of(error)) is not None:
        return refusal
    if is_away(error):
        detail = "PostgreSQL does not answer, so nothing was accepted; send the request again in a moment"
        return ProblemError(UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
        kind = _BY_STATUS[error.status_code]
        return ProblemError(kind, _HINTS.get(kind, "check the request"), headers=dict(error.headers or {}))
    return ProblemError(INTERNAL, "something unforeseen happened; the log has it under this request id")


def _refusal_of(error: CarillonError) -> ProblemError | None:
    if isinstance(error, IdempotencyConflictError):
        detail = f"this Idempotency-Key was used for this task with {OTHER_WORK}; use a new key"
        return ProblemError(KEY_REUSED, detail)
    if isinstance(error, SearchTooWideError):
        return invalid(Fault("query", str(error)))
    kind = _REFUSALS.get(type(error))
    return None if kind is None else ProblemError(kind, str(error))


_HINTS: dict[Kind, str] = {
    NOT_FOUND: "nothing is served at this address; /docs lists what is",
    METHOD_NOT_ALLOWED: "see the Allow header, or /docs",
}


def is_away(error: BaseException) -> bool:
    """Whether the error says that PostgreSQL, not the request, is at fault."""
    if isinstance(error, (*SERVER_AWAY, PlatformUnavailableError, PoolTimeoutError)):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_away(error.orig))
    # The driver's error, or SQLAlchemy's adaption of it.
    state = getattr(error, "sqlstate", None)
    adapted = error.__cause__ if not isinstance(error, PostgresError) else None
    return str(state).startswith(_AWAY_CLASSES) or (isinstance(adapted, Exception) and is_away(adapted))


def body_of(problem: ProblemError, path: str, request_id: str) -> bytes:
    """The JSON of a problem."""
    body: dict[str, Any] = {
        "type": f"/docs#problem-{problem.kind.slug}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail[:1000],
        "instance": path[:200],
        "request_id": request_id,
    }
    if problem.faults:
        body["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in problem.faults]
    return orjson.dumps(body)


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer with the problem that an exception is; unforeseen ones are logged."""
    problem = problem_of(error)
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    if problem.kind is INTERNAL:
        log.error("request failed", request_id=request_id, path=request.url.path, exc_info=error)
    content = body_of(problem, request.url.path, request_id)
    return Response(content, status_code=problem.kind.status, media_type=MEDIA_TYPE, headers=problem.headers)
