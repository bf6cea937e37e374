"""The rest of what is served: documents, pages, files, metrics and the live stream."""

from __future__ import annotations

import json
import re
import threading
from html.parser import HTMLParser

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.app import ROUTES

PAGES = ("/", "/approvals", "/statistics", "/docs", "/docs/events", "/runs/0198f0c1-0000-7000-8000-000000000000")
#: What an operator does may go without a body.
MAY_BE_EMPTY = ("pause", "resume", "cancel", "replay", "settle", "discard", "redeliver", "act", "revoke", "fork")


def test_the_openapi_document_has_every_route_and_no_other(gateway):
    document = gateway.http.get("/openapi.json").json()

    served = {
        (re.sub(r":\w+}", "}", path), method.lower())
        for route in ROUTES
        if route.include_in_schema is not False
        for path in route.paths
        for method in route.http_methods - {"OPTIONS"}
    }
    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert document["openapi"].startswith("3.1")
    assert documented == served
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["security"], (path, method)
            assert set(operation["tags"]) <= {tag["name"] for tag in document["tags"]}
            assert "401" in operation["responses"]
            assert ("requestBody" in operation) == (method == "post")
            if method == "post":
                assert operation["requestBody"]["required"] != path.endswith(MAY_BE_EMPTY)


def test_the_openapi_document_is_one_by_the_rules_of_openapi(gateway):
    document = gateway.http.get("/openapi.json").json()

    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    del document["info"]["title"]
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]


def test_references_within_the_openapi_document_lead_somewhere(gateway):
    document = gateway.http.get("/openapi.json").json()

    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        place = document
        for step in reference.split("/"):
            place = place[step]


def test_the_asyncapi_document_joins_all_domains(gateway):
    document = gateway.http.get("/asyncapi.json").json()

    assert document["asyncapi"].startswith("3.")
    assert "bells.ring_requested.v1" in json.dumps(document["channels"])


class Loads(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.inline = [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "source"} or (tag == "link" and given.get("rel") != "canonical"):
            self.found.append(given.get("src") or given.get("href") or "")
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += ["script"] if tag == "script" and not given.get("src") else []
        self.inline += ["style"] if tag == "style" else []


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_nothing_from_elsewhere_and_hold_nothing_inline(gateway, path):
    answer = gateway.http.get(path)

    page = Loads()
    page.feed(answer.text)
    assert answer.status_code == 200
    assert page.inline == []
    assert page.found
    for address in page.found:
        assert address.startswith("/static/")
        assert gateway.http.get(address).status_code == 200


def test_every_answer_is_guarded_by_its_headers(gateway):
    for path in (*PAGES, "/api/v1/tasks", "/nowhere", "/static/nothing.js", "/health/live"):
        headers = gateway.http.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-request-id"]


def test_a_request_id_is_kept_if_it_is_harmless(gateway):
    kept = gateway.http.get("/nowhere", headers={"X-Request-Id": "order-17-retry"})
    replaced = gateway.http.get("/nowhere", headers={"X-Request-Id": "<script>"})

    assert kept.headers["x-request-id"] == kept.json()["request_id"] == "order-17-retry"
    assert "script" not in replaced.headers["x-request-id"]


def test_metrics_count_requests_by_route_template(gateway):
    for path in ("/api/v1/runs/nothing-1", "/api/v1/runs/nothing-2", "/secret-path-1"):
        gateway.http.get(path)

    metrics = gateway.http.get("/metrics").text

    assert 'gateway_requests_total{method="GET",route="/api/v1/runs/{id}",status="404"}' in metrics
    assert 'gateway_requests_total{method="GET",route="unmatched",status="404"}' in metrics
    assert "nothing-1" not in metrics
    assert "secret-path" not in metrics
    assert "gateway_request_seconds_bucket" in metrics


def test_a_report_is_shown_and_nothing_else_of_the_storage_is(gateway):
    for name in ("reports/r/a.html", "reports/r/a.pdf", "reports/r/a.csv", "reports/r/a.exe", "backup/a.pdf"):
        (gateway.storage / name).parent.mkdir(parents=True, exist_ok=True)
        (gateway.storage / name).write_bytes(b"content")

    page = gateway.http.get("/files/reports/r/a.html")
    table = gateway.http.get("/files/reports/r/a.csv")

    assert (page.status_code, page.content) == (200, b"content")
    assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert gateway.http.get("/files/reports/r/a.pdf").headers["content-type"] == "application/pdf"
    assert table.headers["content-disposition"] == 'attachment; filename="a.csv"'
    for path in (
        "reports/r/a.exe", "backup/a.pdf", "reports/../backup/a.pdf", "reports/%2e%2e/backup/a.pdf",
        "reports/r/none.pdf",
        "reports/..%2fbackup/a.pdf", "/etc/passwd", "reports/r/a.pdf%00", "reports/r/a.pdf%0a",
        "reports/.a.pdf",
    ):  # fmt: skip
        assert gateway.raw(f"GET /files/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).startswith(b"HTTP/1.1 404"), path


def test_the_live_stream_shows_what_changed(gateway):
    with gateway.http.stream("GET", "/api/v1/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        first = _next_overview(lines)
        id_ = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 1}, "delay": 3600}).json()["id"]
        while id_ not in {run["id"] for run in _next_overview(lines)["recent"]}:
            pass

    assert first.keys() >= {"domains", "running", "failed", "recent", "schedules", "workers", "events", "transport"}
    assert first["workers"][0]["domain"] == "bells"
    assert first == gateway.http.get("/api/v1/overview").json() | first


def _next_overview(lines):
    for line in lines:
        if line.startswith("data: "):
            return json.loads(line.removeprefix("data: "))
    raise AssertionError


def test_listeners_beyond_the_bound_are_told_to_ask_instead(start):
    small = start(GATEWAY_LIVE_LISTENERS="1")

    with small.http.stream("GET", "/api/v1/live") as stream:
        lines = stream.iter_lines()
        next(lines)
        refused = small.http.get("/api/v1/live")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]


def test_open_streams_do_not_keep_the_gateway_from_stopping(start):
    one = start()
    ended = threading.Event()

    def listen():
        with one.http.stream("GET", "/api/v1/live") as stream:
            for _ in stream.iter_lines():
                pass
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    one.until("/health/ready", lambda answer: answer["status"] == "ready")
    one.stop()

    assert ended.wait(5)
