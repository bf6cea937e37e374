"""What the gateway refuses, and with which problem.

Every refusal is a `ProblemError`: one of the kinds below, a sentence that says what to do, and, for a request that was
read and does not fit, a list that names each fault and where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from carillon import errors


class Kind(NamedTuple):
    """One kind of problem: its anchor on the documentation page, its HTTP status, and its title."""

    slug: str
    status: int
    title: str


MALFORMED = Kind("malformed", 400, "The request cannot be read")
KEY_REQUIRED = Kind("key-required", 401, "A key is required")
NOT_FOUND = Kind("not-found", 404, "There is no such thing")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "This method is not allowed here")
CONFLICT = Kind("conflict", 409, "It cannot be done as things are")
TOO_SLOW = Kind("too-slow", 408, "The request did not arrive in time")
TOO_LARGE = Kind("too-large", 413, "The request is too large")
MEDIA_TYPE = Kind("media-type", 415, "This content type is not taken")
INVALID = Kind("invalid", 422, "The request does not fit")
KEY_REUSED = Kind("idempotency-key-reused", 422, "The idempotency key was used for something else")
HEADERS_TOO_LARGE = Kind("headers-too-large", 431, "The request has too many headers")
INTERNAL = Kind("internal", 500, "The gateway has a fault")
UNAVAILABLE = Kind("unavailable", 503, "Carillon cannot do this right now")

KINDS = (
    MALFORMED, KEY_REQUIRED, NOT_FOUND, METHOD_NOT_ALLOWED, TOO_SLOW, CONFLICT, TOO_LARGE, MEDIA_TYPE, INVALID,
    KEY_REUSED, HEADERS_TOO_LARGE, INTERNAL, UNAVAILABLE,
)  # fmt: skip


#: One thing wrong with a request. Its `pointer` is a JSON pointer, a parameter or a header.
Fault = errors.Fault


class ProblemError(Exception):
    """The request is refused; the answer is an RFC 9457 problem."""

    def __init__(
        self, kind: Kind, detail: str, *, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = faults
        self.headers = dict(headers or {})


def invalid(*faults: Fault) -> ProblemError:
    """The request was read and does not fit, for these reasons."""
    detail = "; ".join(f"{fault.pointer} {fault.detail}" for fault in faults[:3])
    return ProblemError(INVALID, detail, faults=faults)
