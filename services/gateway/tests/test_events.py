"""Events over HTTP, in the three modes of CloudEvents."""

from __future__ import annotations

import uuid

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}


def event(**more):
    given = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/tests",
        "type": "bells.ring_requested.v1",
        "data": {"bell": "big", "times": 2},
    }
    return {name: value for name, value in (given | more).items() if value is not None}


def test_an_event_becomes_the_run_of_everyone_who_hears_it(gateway):
    answer = gateway.post("/api/v1/events", event(), **STRUCTURED)

    assert answer.status_code == 202
    recorded = answer.json()["events"][0]
    assert recorded["recorded"]
    found = gateway.until("/api/v1/runs?task=bells.ring_on_request", lambda page: len(page["runs"]) > 0)["runs"][0]
    run = gateway.ended(found["id"])
    assert (run["cause"]["id"], run["result"]) == (recorded["id"], {"times": 2})
    assert run["cause"]["actor"] == "local"


def test_the_same_event_twice_is_taken_and_recorded_once(gateway):
    sent = event()

    first, second = (gateway.post("/api/v1/events", sent, **STRUCTURED) for _ in range(2))

    assert (first.status_code, second.status_code) == (202, 202)
    assert [answer.json()["events"][0]["recorded"] for answer in (first, second)] == [True, False]


def test_binary_mode_takes_the_attributes_from_headers(gateway):
    headers = {"ce-specversion": "1.0", "ce-id": "b1", "ce-source": "/tests", "ce-type": "bells.ring_requested.v1"}

    answer = gateway.post("/api/v1/events", {"bell": "small"}, **headers)

    assert answer.status_code == 202
    assert answer.json()["events"][0]["event_id"] == "b1"


def test_what_the_sdk_of_cloudevents_sends_is_taken(gateway):
    attributes = {
        "specversion": "1.0",
        "source": "/sdk",
        "type": "bells.ring_requested.v1",
        "datacontenttype": "application/json",
    }

    for index, encode in enumerate((to_binary_event, to_structured_event)):
        message = encode(CloudEvent(attributes={**attributes, "id": f"sdk-{index}"}, data={"bell": "sdk"}))
        answer = gateway.http.post("/api/v1/events", content=message.body, headers={**message.headers, **gateway.auth})
        assert answer.status_code == 202, answer.text


def test_a_batch_is_recorded_whole(gateway):
    same = event()

    answer = gateway.post("/api/v1/events", [same, event(), same], **BATCH)

    assert answer.status_code == 202
    assert len(answer.json()["events"]) == 3
    assert len({one["id"] for one in answer.json()["events"]}) == 2


def test_a_batch_with_one_bad_event_records_nothing(gateway):
    before = gateway.recorded()

    answer = gateway.post("/api/v1/events", [event(), event(data={"times": 1})], **BATCH)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/1/data"
    assert gateway.recorded() == before


def test_an_unknown_type_is_refused_with_those_that_are_known(gateway):
    answer = gateway.post("/api/v1/events", event(type="bells.stolen.v1"), **STRUCTURED)

    assert answer.status_code == 422
    assert "bells.ring_requested.v1" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (event(type="a.#"), 422),
        (event(type="*"), 422),
        (event(type="a..b"), 422),
        (event(type="x" * 300), 422),
        (event(type="bells.ring_requested.v2"), 422),
        (event(type=None), 422),
        (event(source=None), 422),
        (event(source=""), 422),
        (event(source="/carillon/bells"), 422),
        (event(type="carillon.run_ended.v1"), 422),
        (event(source="a\u0000b"), 422),
        (event(specversion=None), 422),
        (event(specversion="0.3"), 422),
        (event(time="2099-01-01T00:00:00Z"), 422),
        (event(time="2026-01-01T00:00:00"), 422),
        (event(datacontenttype="application/xml"), 422),
        (event(data_base64="AAAA"), 422),
        (event(data=[1]), 422),
        (event(data={"bell": 1}), 422),
        (event(data={"bell": "x", "times": True}), 422),
        (event(data={"bell": "a\u0000"}), 422),
        ([event()], 422),
        (b'{"specversion": "1.0", "specversion": "1.0"}', 400),
        (b"", 400),
        (b"[" * 10_000, 400),
        (b'{"data": {"times": NaN}}', 422),
    ],
)
def test_an_event_that_does_not_fit_is_refused(gateway, sent, status):
    before = gateway.recorded()

    answer = gateway.post("/api/v1/events", sent, **STRUCTURED)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert gateway.recorded() == before


def test_batches_that_are_none_and_other_content_types_are_refused(gateway):
    before = gateway.recorded()

    answers = [
        gateway.post("/api/v1/events", [], **BATCH),
        gateway.post("/api/v1/events", event(), **BATCH),
        gateway.post("/api/v1/events", event()),
        gateway.post("/api/v1/events", event(), **{"Content-Type": "text/plain"}),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422, 415]
    assert gateway.recorded() == before


def test_contracts_and_recent_events_are_listed(gateway):
    gateway.post("/api/v1/events", event(), **STRUCTURED)

    types = gateway.http.get("/api/v1/event-types").json()["event_types"]
    recent = gateway.http.get("/api/v1/events?limit=1").json()["events"]

    assert [one["type"] for one in types] == ["bells.bell_rung.v1", "bells.ring_requested.v1"]
    assert len(recent) == 1
