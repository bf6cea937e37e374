"""The machine-readable documents: OpenAPI of this gateway, and one AsyncAPI of all domains."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Tag

from carillon.platform import Platform
from gateway.api.openapi import completed
from gateway.api.requests import Asked

VERSION = "0.1.0"
#: Lets the routes describe themselves; `completed` adds what their signatures cannot say.
CONFIG = OpenAPIConfig(
    title="Carillon",
    version=VERSION,
    description=(
        "Submit work, publish events, and see everything that happened. Reading is open unless the gateway is set "
        "otherwise; changing anything takes a key, and so does seeing which keys there are. Every error is an RFC 9457 "
        "problem."
    ),
    tags=[
        Tag("Tasks", "What can be done, and asking for it."),
        Tag("Runs", "What was asked for, and what became of it."),
        Tag("Steering", "Cancel, pause, resume and repeat: one run, a whole queue, or many runs that were looked at."),
        Tag("Workflows", "Work of many steps: how far it is, what it waits for, and what it asks people."),
        Tag("Dead letters", "What failed for good, by what went wrong; and what to do about it."),
        Tag("Schedules", "What happens by itself, and when."),
        Tag("Events", "What happened: CloudEvents in, and the newest ones out."),
        Tag("Audit", "Who did what, when, why and from where; and whether that is still what was written."),
        Tag("Keys", "Who may change anything: making keys, and revoking them."),
        Tag("Overview", "The whole platform in one answer."),
        Tag("Files", "Rendered reports."),
    ],
    path="/schema",
    render_plugins=[],
    use_handler_docstrings=True,
)


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def openapi(request: Asked) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this gateway."""
    return openapi_document(request)


def openapi_document(request: Asked) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    state = request.app.state
    if "openapi_document" not in state:
        state["openapi_document"] = completed(request.app.openapi_schema.to_schema())
    document: dict[str, Any] = state["openapi_document"]
    return document


@get("/asyncapi.json", include_in_schema=False)
async def asyncapi(platform: Platform) -> dict[str, Any]:
    """Return one AsyncAPI document of all domains."""
    return await asyncapi_document(platform)


async def asyncapi_document(platform: Platform) -> dict[str, Any]:
    """The documents of all domains as one. Names that two domains share mean the same event."""
    merged: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Carillon",
            "version": VERSION,
            "description": "Every event that the domains of this platform say and hear.",
        },
        "defaultContentType": "application/cloudevents+json",
    }
    for row in await platform.catalogue.domains():
        document = row["asyncapi"] or {}
        merged["asyncapi"] = document.get("asyncapi", merged["asyncapi"])
        for part in ("servers", "channels", "operations", "components"):
            _merge(merged, part, document.get(part))
    return merged


def _merge(into: dict[str, Any], name: str, value: object) -> None:
    if isinstance(value, dict):
        place = into.setdefault(name, {})
        for key, item in value.items():
            _merge(place, key, item)
    elif value is not None:
        into.setdefault(name, value)
