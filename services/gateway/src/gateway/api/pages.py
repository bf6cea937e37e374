"""The pages for people, and their files. They load nothing from elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response, get

from carillon.ledger.audit import ACTIONS
from carillon.platform import Platform
from gateway.api.documents import asyncapi_document, openapi_document
from gateway.api.requests import Asked
from gateway.errors import KINDS, NOT_FOUND, ProblemError
from gateway.reference import event_types_of, operations_of

_templates = Environment(
    loader=PackageLoader("gateway", "pages/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9a-fA-F:.]+\](:[0-9]+)?")
_FILES = {
    entry.name: entry.read_bytes()
    for entry in files("gateway").joinpath("pages/static").iterdir()
    if entry.name.rpartition(".")[2] in _TYPES
}


def _page(template: str, **values: object) -> Response[str]:
    return Response(_templates.get_template(template).render(**values), media_type="text/html; charset=utf-8")


@get("/", include_in_schema=False, sync_to_thread=False)
def status() -> Response[str]:
    """The status page; its script fills it."""
    return _page("status.html", here="status")


@get("/runs/{id:str}", include_in_schema=False, sync_to_thread=False)
def run(id: str) -> Response[str]:  # noqa: A002, ARG001 - the script reads it from the address
    """The page of one run; its script fills it."""
    return _page("run.html", here="run")


@get("/runs", include_in_schema=False, sync_to_thread=False)
def runs() -> Response[str]:
    """The search of runs; its script fills it."""
    return _page("runs.html", here="runs")


@get("/approvals", include_in_schema=False, sync_to_thread=False)
def approvals() -> Response[str]:
    """What workflows ask people; its script fills it."""
    return _page("approvals.html", here="approvals")


@get(["/dead-letters", "/dead-letters/{fingerprint:str}"], include_in_schema=False, sync_to_thread=False)
def dead_letters() -> Response[str]:
    """What needs a person, or one group of it; its script reads from the address which."""
    return _page("dead-letters.html", here="dead-letters")


@get("/statistics", include_in_schema=False, sync_to_thread=False)
def statistics() -> Response[str]:
    """Where time and failures go, by task; its script fills it."""
    return _page("statistics.html", here="statistics")


@get("/audit", include_in_schema=False, sync_to_thread=False)
def audit() -> Response[str]:
    """Who did what, and whether the trail holds; its script fills it."""
    return _page("audit.html", here="audit", actions=ACTIONS)


@get("/docs", include_in_schema=False, sync_to_thread=False)
def api_documentation(request: Asked) -> Response[str]:
    """The HTTP interface, for people."""
    document = openapi_document(request)
    groups = operations_of(document, _origin(request))
    return _page("docs.html", here="docs", document=document, groups=groups, kinds=KINDS)


@get("/docs/events", include_in_schema=False)
async def event_documentation(request: Asked, platform: Platform) -> Response[str]:
    """Every event, for people."""
    document = await asyncapi_document(platform)
    rows, tasks = await platform.catalogue.event_types(), await platform.catalogue.tasks()
    types = event_types_of(rows, tasks, _origin(request))
    return _page("events.html", here="events", document=document, types=types)


@get("/static/{name:str}", include_in_schema=False, sync_to_thread=False)
def static(name: str) -> Response[bytes]:
    """A file of the pages."""
    return _file(name)


@get("/favicon.ico", include_in_schema=False, sync_to_thread=False)
def favicon() -> Response[bytes]:
    """The bell."""
    return _file("bell.svg")


def _origin(request: Asked) -> str:
    """Where the reader reached us, so that the examples can be copied as they are."""
    # The reader's own word; what a shell would not take for an address stays out of a command.
    host = request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host}" if _HOST.fullmatch(host) else "http://127.0.0.1:8000"


def _file(name: str) -> Response[Any]:
    if name not in _FILES:
        message = "the pages have no such file"
        raise ProblemError(NOT_FOUND, message)
    media_type = _TYPES[name.rpartition(".")[2]]
    return Response(_FILES[name], media_type=media_type, headers={"Cache-Control": "public, max-age=300"})
