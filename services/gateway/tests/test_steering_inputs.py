"""Bad inputs for everything that steers: each is refused with a problem, and nothing is done or recorded."""

from __future__ import annotations

import json
import re

import pytest

NOBODY = "00000000-0000-0000-0000-000000000000"
NOON = "2026-01-01T12:00:00Z"
REASONED = (
    f"runs/{NOBODY}/cancel", f"runs/{NOBODY}/pause", f"runs/{NOBODY}/resume", f"runs/{NOBODY}/replay",
    f"runs/{NOBODY}/settle", "domains/bells/pause", "domains/bells/resume", "tasks/bells.ring/pause",
    "tasks/bells.ring/resume", "dead-letters/ab12/replay", "dead-letters/ab12/discard", "dead-letters/ab12/redeliver",
    f"dead-letters/messages/{NOBODY}/redeliver", f"selections/{NOBODY}/act",
)  # fmt: skip
BODIES = {
    "an array": (b"[]", 422),
    "null": (b"null", 422),
    "a reason that is none": (b'{"reason": 7}', 422),
    "an actor": (b'{"reason": "x", "actor": "somebody"}', 422),
    "NUL": (rb'{"reason": "\u0000"}', 422),
    "half a character": (rb'{"reason": "\ud800"}', 400),
    "two reasons": (b'{"reason": "x", "reason": "y"}', 400),
    "a long reason": (json.dumps({"reason": "x" * 501}).encode(), 422),
    "no JSON": (b"because", 400),
    "too much": (b"x" * 300_000, 413),
    "too deep": (b'{"a":' * 65 + b"1" + b"}" * 65, 400),
}


def kept(gateway):
    return [
        tuple(row)
        for row in gateway.fetch(
            """select (select count(*) from carillon.runs), (select count(*) from carillon.selections),
                      (select count(*) from carillon.holds), (select coalesce(max(seq), 0) from carillon.audit)"""
        )
    ]


def assert_problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert "Traceback" not in answer.text


def test_the_list_of_what_steers_is_whole(gateway):
    document = gateway.http.get("/openapi.json").json()
    steering = {"Steering", "Dead letters"}

    posts = {
        path for path, methods in document["paths"].items() if steering & set(methods.get("post", {}).get("tags", ()))
    }

    known = [f"/api/v1/{path}" for path in (*REASONED, "selections")]
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in posts]
    assert len(posts) == len(known)
    assert all(any(pattern.fullmatch(path) for pattern in patterns) for path in known)


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_cannot_be_one_is_refused_by_all_that_steers(gateway, name):
    body, status = BODIES[name]
    before = kept(gateway)

    for path in REASONED:
        assert_problem(gateway.post(f"/api/v1/{path}", body), status)

    assert kept(gateway) == before


def test_nothing_is_steered_without_a_key_or_with_another_type_of_body(gateway):
    before = kept(gateway)

    for path in (*REASONED, "selections"):
        keyless = gateway.http.post(f"/api/v1/{path}", json={})
        assert_problem(keyless, 401)
        assert_problem(gateway.http.post(f"/api/v1/{path}", json={}, headers={"X-API-Key": "carillon_x"}), 401)
        assert_problem(gateway.post(f"/api/v1/{path}", b'{"reason": "x"}', **{"Content-Type": "text/plain"}), 415)

    assert kept(gateway) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"runs/{NOBODY}/replay", {"args": []}),
        (f"runs/{NOBODY}/replay", {"args": None}),
        (f"runs/{NOBODY}/replay", {"arguments": {}}),
        ("dead-letters/ab12/replay", {"rate": 0}),
        ("dead-letters/ab12/replay", {"rate": -1}),
        ("dead-letters/ab12/replay", {"rate": 1_000_000}),
        ("dead-letters/ab12/replay", {"rate": "50"}),
        ("dead-letters/ab12/replay", {"canary": "yes"}),
        ("dead-letters/ab12/replay", {"task": ""}),
        ("dead-letters/ab12/discard", {"task": 7}),
        (f"dead-letters/messages/{NOBODY}/redeliver", {"body": {"a": 1}}),
        (f"dead-letters/messages/{NOBODY}/redeliver", {"body": None}),
        (f"dead-letters/messages/{NOBODY}/redeliver", {"headers": {}}),
        (f"selections/{NOBODY}/act", {"rate": 0}),
        (f"selections/{NOBODY}/act", {"count": 5}),
        ("selections", []),
        ("selections", {}),
        ("selections", {"action": "cancel"}),
        ("selections", {"action": "cancel", "filters": {}}),
        ("selections", {"action": "cancel", "filters": []}),
        ("selections", {"action": "explode", "filters": {"task": "bells.ring"}}),
        ("selections", {"action": "cancel", "filters": {"task": "bells.ring"}, "reason": "x"}),
        ("selections", {"action": "cancel", "filters": {"task": ""}}),
        ("selections", {"action": "cancel", "filters": {"task": "a\u0000"}}),
        ("selections", {"action": "cancel", "filters": {"task": ["a"]}}),
        ("selections", {"action": "cancel", "filters": {"state": "failed"}}),
        ("selections", {"action": "cancel", "filters": {"state": ["' or 1=1--"]}}),
        ("selections", {"action": "cancel", "filters": {"label": ["alone"]}}),
        ("selections", {"action": "cancel", "filters": {"since": "yesterday"}}),
        ("selections", {"action": "cancel", "filters": {"since": NOON, "until": NOON}}),
        ("selections", {"action": "cancel", "filters": {"limit": 5}}),
        ("selections", {"action": "cancel", "filters": {"cursor": "x"}}),
        ("selections", {"action": "cancel", "filters": {"where": "true"}}),
    ],
)  # fmt: skip
def test_a_wish_that_means_nothing_is_refused_and_says_where(gateway, path, body):
    before = kept(gateway)

    answer = gateway.post(f"/api/v1/{path}", body)

    assert_problem(answer, 422)
    assert answer.json()["errors"][0].keys() == {"pointer", "detail"}
    assert kept(gateway) == before


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=401", "limit=x", "limit=1&limit=2", "domain=", "colour=red", "domain=%00"]
)
def test_a_list_that_means_nothing_is_refused(gateway, query):
    assert_problem(gateway.http.get(f"/api/v1/dead-letters?{query}"), 422)


@pytest.mark.parametrize("body", [{"limit": 0}, {"limit": "1"}, {"until": "soon"}, {"until": None}, {"body": "{}"}])
def test_a_redelivery_of_a_group_that_means_nothing_is_refused(gateway, body):
    before = kept(gateway)

    assert_problem(gateway.post("/api/v1/dead-letters/ab12/redeliver", body), 422)
    assert kept(gateway) == before


def test_what_is_no_group_or_message_is_not_found(gateway):
    before = kept(gateway)

    assert_problem(gateway.http.get("/api/v1/dead-letters/messages"), 404)
    for name in ("ffff", "x" * 65, "'--", "%00"):
        assert_problem(gateway.http.get(f"/api/v1/dead-letters/{name}"), 404)
        for word in ("replay", "discard", "redeliver"):
            assert_problem(gateway.post(f"/api/v1/dead-letters/{name}/{word}", {}), 404)
    for name in (NOBODY, "x", "%00"):
        assert_problem(gateway.http.get(f"/api/v1/dead-letters/messages/{name}"), 404)
    assert kept(gateway) == before
