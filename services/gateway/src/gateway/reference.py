"""Turning OpenAPI and JSON Schema into what the documentation pages print: rows, examples, commands."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_MOST_DEPTH = 6
_METHODS = ("get", "post")


class Field(NamedTuple):
    """One line of a table: a parameter, or a member of an object."""

    name: str
    kind: str
    required: bool
    doc: str
    place: str = ""


class Operation(NamedTuple):
    """One thing that the interface does."""

    anchor: str
    method: str
    path: str
    summary: str
    doc: str
    parameters: list[Field]
    body: list[Field]
    media_types: list[str]
    answer: list[Field]
    status: str
    command: str


class EventType(NamedTuple):
    """One type of event, as its page section prints it."""

    type: str
    doc: str
    fields: list[Field]
    heard_by: list[str]
    said_by: list[str]
    command: str


def operations_of(document: Mapping[str, Any], origin: str) -> list[tuple[Mapping[str, Any], list[Operation]]]:
    """The operations of an OpenAPI document by tag, in the order of its tags; their commands go to `origin`."""
    found: defaultdict[str, list[Operation]] = defaultdict(list)
    for path, methods in sorted(document["paths"].items()):
        for method in _METHODS:
            if method in methods:
                operation = methods[method]
                found[operation["tags"][0]].append(_operation(document, method, path, operation, origin))
    return [(tag, found[tag["name"]]) for tag in document["tags"]]


def _operation(
    document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any], origin: str
) -> Operation:
    content = operation.get("requestBody", {}).get("content", {})
    status, answer = next((item for item in operation["responses"].items() if item[0].startswith("2")), ("200", {}))
    shown = _first(answer).get("schema", {})
    return Operation(
        anchor=f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
        method=method.upper(),
        path=path,
        summary=operation.get("summary", ""),
        doc=operation.get("description", ""),
        parameters=[_parameter(parameter) for parameter in operation.get("parameters", [])],
        body=fields_of(_first({"content": content}).get("schema", {}), document),
        media_types=list(content),
        answer=fields_of(shown, document),
        status=status,
        command=_command(method, origin + path, content),
    )


def _first(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    media_types: list[Mapping[str, Any]] = list(holder.get("content", {}).values())
    return media_types[0] if media_types else {}


def _parameter(parameter: Mapping[str, Any]) -> Field:
    doc = parameter.get("description") or ""
    kind = kind_of(parameter["schema"], {})
    return Field(parameter["name"], kind, parameter.get("required", False), doc, parameter["in"])


def _command(method: str, address: str, content: Mapping[str, Any]) -> str:
    address = address.replace("{", "").replace("}", "")
    parts = [f"curl -s {address}"]
    if method == "post":
        parts = [f"curl -s -X POST {address}"]
        parts.append('-H "Authorization: Bearer $CARILLON_KEY"')
    if content:
        media_type, body = next(iter(content.items()))
        parts += [f"-H 'Content-Type: {media_type}'", f"-d '{json.dumps(body['example'])}'"]
    return " \\\n  ".join(parts)


def fields_of(schema: Mapping[str, Any], document: Mapping[str, Any]) -> list[Field]:
    """The members of an object schema."""
    schema = _resolved(schema, document)
    required = schema.get("required", ())
    return [
        Field(name, kind_of(member, document), name in required, str(member.get("description", "")))
        for name, member in schema.get("properties", {}).items()
    ]


def kind_of(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int = 0) -> str:
    """What a schema takes, in a few words."""
    schema = _resolved(schema, document)
    if depth > _MOST_DEPTH:
        return "..."
    options: Sequence[Mapping[str, Any]] = schema.get("anyOf") or schema.get("oneOf") or ()
    if options:
        return " or ".join(dict.fromkeys(kind_of(option, document, depth + 1) for option in options))
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum") or [schema["const"]])
    return _plain_kind(schema, document, depth)


def _plain_kind(schema: Mapping[str, Any], document: Mapping[str, Any], depth: int) -> str:
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        kind = " or ".join(kind)
    if kind == "array":
        return f"list of {kind_of(schema.get('items', {}), document, depth + 1)}"
    if kind == "object" and "title" in schema and "properties" in schema:
        return str(schema["title"])
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_MOST_DEPTH):
        if "$ref" not in schema:
            break
        found: Any = document
        for step in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
        schema = found
    return schema


def event_types_of(
    types: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]], origin: str
) -> list[EventType]:
    """The registered types of event, with who says and who hears them; their commands go to `origin`."""
    return [
        EventType(
            type=row["type"],
            doc=row["doc"],
            fields=fields_of(row["schema"], row["schema"]),
            heard_by=[task["name"] for task in tasks if task["hears"] == row["type"]],
            said_by=[task["name"] for task in tasks if row["type"] in task["says"]],
            command=_event_command(row, origin),
        )
        for row in types
    ]


def _event_command(row: Mapping[str, Any], origin: str) -> str:
    data = {name: _sample(member, row["schema"]) for name, member in row["schema"].get("properties", {}).items()}
    event = {"specversion": "1.0", "id": "1", "source": "/example", "type": row["type"], "data": data}
    content = {"application/cloudevents+json": {"example": event}}
    return _command("post", f"{origin}/api/v1/events", content)


def _sample(schema: Mapping[str, Any], document: Mapping[str, Any]) -> object:
    schema = _resolved(schema, document)
    if "default" in schema or "enum" in schema or "const" in schema:
        return schema.get("default", schema.get("const", (schema.get("enum") or [None])[0]))
    samples: dict[str, object] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    formats = {"date-time": "2026-11-24T09:00:00Z", "uuid": "0198f0c1-0000-7000-8000-000000000000"}
    return samples.get(str(schema.get("type")), formats.get(str(schema.get("format")), "..."))
