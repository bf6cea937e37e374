"""The audit trail: reading it page by page, and checking its chain."""

from __future__ import annotations

from typing import Any

from litestar import get

from carillon.ledger.audit import ACTIONS, AuditSearch
from carillon.ledger.audit_chain import Link
from carillon.platform import Platform
from carillon.shapes import moment
from gateway.api.audit_views import AuditEntry, AuditPage, AuditVerdict, BrokenEntry
from gateway.api.requests import Asked, query
from gateway.cursors import Cursors
from gateway.filters import PAGED, WORD

#: The query of `GET /api/v1/audit`.
AUDIT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "actor": {**WORD, "description": "The whole name of a key, a person or a service."},
        "action": {"description": "What was done.", "enum": list(ACTIONS)},
        "subject": {**WORD, "description": "The whole name or id of what it was done to."},
        "since": {"description": "Done at or after this moment.", "type": "string", "format": "date-time"},
        "until": {"description": "Done before this moment.", "type": "string", "format": "date-time"},
        **PAGED,
    },
    "additionalProperties": False,
}


#: The query of `GET /api/v1/audit/verify`.
VERIFY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "noted": {
            "description": "An entry that was noted elsewhere: its number, a colon and its hash.",
            "type": "string",
            "pattern": r"^[0-9]{1,18}:[0-9a-f]{64}$",
            "x-must-be": "a number, a colon and the 64 digits of a hash",
        },
    },
    "additionalProperties": False,
}


@get("/api/v1/audit", tags=["Audit"])
async def list_audit(request: Asked, platform: Platform, cursors: Cursors) -> AuditPage:
    """What operators and deployments did, newest first, page by page."""
    asked = query(request, AUDIT)
    limit = asked.get("limit", 50)
    filters = {name: value for name, value in asked.items() if name not in {"cursor", "limit"}}
    before = cursors.read_number(asked["cursor"], filters) if "cursor" in asked else None
    moments: dict[str, Any] = {name: moment(filters[name]) for name in ("since", "until") if name in filters}
    search = AuditSearch(**(filters | moments), before=before, limit=limit + 1)
    rows = await platform.audit.page(search)
    page, more = rows[:limit], len(rows) > limit
    return AuditPage(
        entries=[AuditEntry.of(row) for row in page],
        next_cursor=cursors.write_number(page[-1]["seq"], filters) if more else None,
    )


@get("/api/v1/audit/verify", tags=["Audit"])
async def verify_audit(request: Asked, platform: Platform) -> AuditVerdict:
    """Follow the chain from the first entry to the newest; a changed, missing or moved one is named.

    With an entry that was noted elsewhere it also shows whether the chain still holds that one.
    """
    asked = query(request, VERIFY).get("noted")
    number, _, digest = (asked or "").partition(":")
    verdict = await platform.audit.verify(Link(int(number), digest) if asked else None)
    broken = verdict.broken
    return AuditVerdict(
        holds=broken is None,
        entries=verdict.sound.seq,
        hash=verdict.sound.hash,
        broken=None if broken is None else BrokenEntry(seq=broken.seq, fault=broken.fault),
    )
