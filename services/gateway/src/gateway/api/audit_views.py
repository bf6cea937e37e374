"""What the answers of the audit trail look like."""

from __future__ import annotations

from typing import Any

from gateway.api.views import View


class AuditEntry(View, frozen=True, kw_only=True):
    """Something that was done. `hash` is the SHA-256 of the rest as JSON, with sorted names and without spaces."""

    seq: int
    at: str
    #: The name of a key, a person or a service.
    actor: str
    #: The process, host or address that it was done from.
    origin: str
    action: str
    subject: str
    reason: str | None
    details: dict[str, Any]
    #: The hash of the entry before.
    previous: str
    hash: str


class AuditPage(View, frozen=True, kw_only=True):
    """One page of the audit trail, newest first. `next_cursor` is null on the last one."""

    entries: list[AuditEntry]
    next_cursor: str | None


class BrokenEntry(View, frozen=True, kw_only=True):
    """The first entry with which the chain does not hold."""

    seq: int
    fault: str


class AuditVerdict(View, frozen=True, kw_only=True):
    """How far the chain of the audit trail holds."""

    holds: bool
    #: How many entries hold, from the first on.
    entries: int
    #: The hash of the last of them; noted elsewhere, it proves later that they are the same.
    hash: str
    broken: BrokenEntry | None
