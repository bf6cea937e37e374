"""What the OpenAPI document says beyond the handlers' signatures: bodies, queries, problems, keys, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carillon.bounds import MOST_KEY
from gateway.access import CLOSED
from gateway.api.audit import AUDIT, VERIFY
from gateway.api.dead_letters import DISCARD, GROUPS, MEMBERS, REDELIVER, REDELIVER_GROUP, REPLAY_GROUP
from gateway.api.keys import CREATE
from gateway.api.past import WINDOW
from gateway.api.requests import REASON
from gateway.api.runs import SEARCH
from gateway.api.schedules import NEWEST
from gateway.api.selections import ACT, SELECT
from gateway.api.steering import REPLAY
from gateway.api.workflows import APPROVALS, DECISION, FORK, STEPS, WORKFLOWS
from gateway.errors import KINDS
from gateway.problems import MEDIA_TYPE
from gateway.submissions import BATCH, KICK, SUBMIT

_ATTRIBUTES: dict[str, Any] = {
    "specversion": {"const": "1.0"},
    "id": {"type": "string", "minLength": 1, "maxLength": 256},
    "source": {"type": "string", "minLength": 1, "maxLength": 256, "description": "With `id`, unique."},
    "type": {"type": "string", "maxLength": 128, "description": "A type that a domain says or hears."},
    "subject": {"type": "string", "minLength": 1, "maxLength": 256},
    "time": {"type": "string", "format": "date-time"},
    "datacontenttype": {"const": "application/json"},
    "traceparent": {"type": "string"},
    "data": {"type": "object"},
}
_EVENT = {"type": "object", "properties": _ATTRIBUTES, "required": ["specversion", "source", "type"]}
_EXAMPLE = {
    "specversion": "1.0",
    "id": "order-17",
    "source": "/shop",
    "type": "backup.requested.v1",
    "data": {"source": "platform"},
}


DECIDED = "/api/v1/workflows/{id}/steps/{seq}/decision"


def _json(schema: Mapping[str, Any], **example: object) -> dict[str, Any]:
    return {"application/json": {"schema": schema, "example": example}}


#: Bodies that may also be empty.
_WISHES: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (f"/api/v1/{path}", "post"): _json(REASON, reason="the disk is full")
        for path in (
            "tasks/scheduled/{name}/pause", "tasks/scheduled/{name}/resume", "runs/{id}/cancel", "runs/{id}/pause",
            "runs/{id}/resume", "runs/{id}/settle", "domains/{domain}/pause", "domains/{domain}/resume",
            "tasks/{task}/pause", "tasks/{task}/resume", "keys/{name}/revoke",
        )
    },
    ("/api/v1/runs/{id}/replay", "post"): _json(REPLAY, args={"source": "platform"}, reason="the source is back"),
    ("/api/v1/workflows/{id}/fork", "post"): _json(FORK, step=3, reason="the carrier is back"),
    ("/api/v1/dead-letters/{fingerprint}/replay", "post"): _json(REPLAY_GROUP, rate=10, canary=True, reason="mended"),
    ("/api/v1/dead-letters/{fingerprint}/discard", "post"): _json(DISCARD, reason="known, and harmless"),
    ("/api/v1/dead-letters/{fingerprint}/redeliver", "post"): _json(REDELIVER_GROUP, limit=1, reason="mended"),
    ("/api/v1/dead-letters/messages/{id}/redeliver", "post"): _json(REDELIVER, body='{"mended": true}', reason="typo"),
    ("/api/v1/selections/{token}/act", "post"): _json(ACT, rate=50, canary=True, reason="a storm"),
}  # fmt: skip
_ACCEPT: dict[tuple[str, str], dict[str, Any]] = {
    ("/api/v1/tasks", "post"): {
        "application/json": {
            "schema": SUBMIT,
            "example": {
                "task": "backup.back_up_database",
                "args": {"source": "platform"},
                "priority": "high",
                "unique": {"key": "platform", "on_conflict": "reject"},
                "deadline": 3600,
                "callback_url": "https://example.org/ended",
            },
        }
    },
    **_WISHES,
    (DECIDED, "post"): _json(DECISION, approve=True, reason="the customer agreed"),
    ("/api/v1/keys", "post"): _json(CREATE, name="ada", reason="joins the team"),
    ("/api/v1/selections", "post"): _json(
        SELECT, action="cancel", filters={"task": "reports.report_operations", "state": ["queued"]}
    ),
    ("/api/v1/tasks/batch", "post"): {
        "application/json": {
            "schema": BATCH,
            "example": {"tasks": [{"task": "backup.back_up_database", "args": {"source": "platform"}}]},
        }
    },
    ("/api/v1/tasks/{domain}/kick", "post"): {
        "application/json": {"schema": KICK, "example": {"data": {"source": "platform"}}}
    },
    ("/api/v1/events", "post"): {
        "application/cloudevents+json": {"schema": _EVENT, "example": _EXAMPLE},
        "application/cloudevents-batch+json": {
            "schema": {"type": "array", "minItems": 1, "maxItems": 500, "items": _EVENT},
            "example": [_EXAMPLE],
        },
        "application/json": {
            "schema": {"type": "object", "description": "The data; the attributes are `ce-` headers (binary mode)."},
            "example": {"source": "platform"},
        },
    },
}
_QUERIES: dict[tuple[str, str], Mapping[str, Any]] = {
    ("/api/v1/runs", "get"): SEARCH,
    ("/api/v1/tasks/history", "get"): SEARCH,
    ("/api/v1/statistics", "get"): WINDOW,
    ("/api/v1/workflows", "get"): WORKFLOWS,
    ("/api/v1/workflows/{id}", "get"): STEPS,
    ("/api/v1/approvals", "get"): APPROVALS,
    ("/api/v1/tasks/scheduled/{name}/fires", "get"): NEWEST,
    ("/api/v1/events", "get"): NEWEST,
    ("/api/v1/audit", "get"): AUDIT,
    ("/api/v1/audit/verify", "get"): VERIFY,
    ("/api/v1/dead-letters", "get"): GROUPS,
    ("/api/v1/dead-letters/{fingerprint}", "get"): MEMBERS,
}
#: What a run returned may be any JSON.
RESULT = "/api/v1/runs/{id}/result"
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key, task and arguments are one run, however often they are sent. Other arguments, or "
    "another `after`, `callback_url` or `unique.key`: 422. Times, priority and labels may differ; the first ones hold.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MOST_KEY, "pattern": "^[ -~]+$"},
}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "enum": [f"/docs#problem-{kind.slug}" for kind in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, and what to do."},
        "instance": {"type": "string"},
        "request_id": {"type": "string", "description": "As in the header X-Request-Id and in the log."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["pointer", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
}
_EVERYWHERE = ("401", "422", "500", "503")
_WITH_PATH = ("404",)
_SUBMITTING = ("/api/v1/tasks", "/api/v1/tasks/{domain}/kick")
_STEERING = ("409",)
_WITH_BODY = ("400", "408", "413", "415")


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document that Litestar made from the handlers, with everything else that callers need."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key, carillon_..."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
    }
    components["responses"] = {str(kind.status): _response(kind.status) for kind in KINDS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if isinstance(operation, dict):
                _complete(path, method, operation)
    return document


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    operation["security"] = [{"bearer": []}, {"header": []}] + ([{}] if method == "get" and path != CLOSED else [])
    parameters = operation.setdefault("parameters", [])
    for name, schema in _QUERIES.get((path, method), {}).get("properties", {}).items():
        parameters.append({"name": name, "in": "query", "schema": schema, "description": schema.get("description", "")})
    statuses = [*_EVERYWHERE, *(_WITH_PATH if "{" in path else ())]
    if (path, method) in _ACCEPT:
        content = _ACCEPT[path, method]
        operation["requestBody"] = {"required": (path, method) not in _WISHES, "content": content}
        statuses += _WITH_BODY
        statuses += _STEERING if (path, method) in _WISHES or path in (*_SUBMITTING, CLOSED, DECIDED) else ()
        if path in _SUBMITTING:
            parameters.append(_IDEMPOTENCY_KEY)
    responses = operation["responses"]
    if path == RESULT:
        responses["200"]["content"] = {"application/json": {"schema": {"description": "Whatever the task returned."}}}
    responses.pop("400", None)
    responses.update({status: {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)})


def _response(status: int) -> dict[str, Any]:
    titles = "; ".join(kind.title for kind in KINDS if kind.status == status)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": f"{titles}.", "content": content}
