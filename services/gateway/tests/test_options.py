"""How a submitted run is to run: times, unique keys, other runs before it, and who is told of its end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from gateway.submissions import new_run

RING = {"task": "bells.ring", "args": {"times": 1}}
NOBODY = "00000000-0000-0000-0000-000000000000"


def submit(gateway, **more):
    return gateway.post("/api/v1/tasks", RING | more)


def column(gateway, run, name):
    ((value,),) = gateway.fetch(f"select {name} from carillon.runs where id = $1", run)
    return value


def state_of(gateway, run):
    return gateway.http.get(f"/api/v1/tasks/{run}/status").json()["status"]


def test_what_a_task_was_declared_with_is_on_every_run_of_it_unless_the_submit_says_otherwise():
    policy = {"labels": {"team": "blue", "tier": "gold"}, "priority": 2}
    task = {"name": "bells.ring", "domain": "bells", "policy": policy}

    plain, own = (
        new_run(task, {}, options, actor="ada", key=None, traceparent=None)
        for options in ({}, {"labels": {"tier": "tin"}, "priority": "low"})
    )

    assert (plain.labels, plain.priority) == ({"team": "blue", "tier": "gold"}, 2)
    assert (own.labels, own.priority) == ({"team": "blue", "tier": "tin"}, 0)


def test_the_longest_label_is_found(gateway):
    label = "x" * 200
    run = submit(gateway, labels={"l" * 63: label}, delay=3600).json()["id"]

    found = gateway.http.get("/api/v1/runs", params={"label": f"{'l' * 63}:{label}"}).json()["runs"]

    assert [one["id"] for one in found] == [run]


def test_fifty_submits_at_once_with_one_unique_key_are_one_run(gateway):
    unique = {"key": f"customer {uuid4()}"}

    with ThreadPoolExecutor(25) as crowd:
        sent = [crowd.submit(submit, gateway, args={"times": n}, unique=unique, delay=3600) for n in range(50)]
        answers = [one.result() for one in sent]

    assert {answer.status_code for answer in answers} == {202}
    (holder,) = {answer.json()["id"] for answer in answers}
    assert [answer.json()["created"] for answer in answers].count(True) == 1
    assert {answer.headers["location"] for answer in answers} == {f"/api/v1/tasks/{holder}/status"}
    assert state_of(gateway, holder) == "queued"


def test_without_a_key_the_arguments_are_the_key(gateway):
    words = str(uuid4())
    one, other = ({"times": 1, "words": {"a": words, "b": n}} for n in (1, 2))
    same = {"words": {"b": 1, "a": words}, "times": 1}

    answers = [submit(gateway, args=args, unique={}, delay=3600).json() for args in (one, same, other)]

    assert [answer["created"] for answer in answers] == [True, False, True]
    assert answers[0]["id"] == answers[1]["id"] != answers[2]["id"]


def test_a_taken_key_is_refused_with_the_run_that_has_it_where_that_is_wished(gateway):
    unique = {"key": str(uuid4()), "on_conflict": "reject"}
    first = submit(gateway, unique=unique, delay=3600)
    before = gateway.recorded()

    second = submit(gateway, unique=unique, delay=3600)

    holder = first.json()["id"]
    assert (first.status_code, second.status_code) == (202, 409)
    assert second.json()["type"] == "/docs#problem-conflict"
    assert holder in second.json()["detail"]
    assert second.headers["location"] == f"/api/v1/tasks/{holder}/status"
    assert gateway.recorded() == before


def test_a_submit_that_is_sent_again_meets_its_own_run_and_is_no_conflict(gateway):
    unique = {"key": str(uuid4()), "on_conflict": "reject"}
    sent = {"unique": unique, "delay": 3600, "idempotency_key": str(uuid4())}

    first, again = submit(gateway, **sent), submit(gateway, **sent)
    gateway.post(f"/api/v1/runs/{first.json()['id']}/cancel", {})
    submit(gateway, unique=unique, delay=3600)
    late = submit(gateway, **sent)

    assert [answer.status_code for answer in (first, again, late)] == [202, 202, 202]
    assert [answer.json()["created"] for answer in (first, again, late)] == [True, False, False]
    assert first.json()["id"] == again.json()["id"] == late.json()["id"]


def test_a_new_run_takes_the_place_of_one_that_waits(gateway):
    key = str(uuid4())
    first = submit(gateway, unique={"key": key}, delay=3600).json()

    second = submit(gateway, unique={"key": key, "on_conflict": "replace"}, delay=3600).json()

    assert second["created"]
    assert (state_of(gateway, first["id"]), state_of(gateway, second["id"])) == ("cancelled", "queued")


def test_a_window_keeps_others_out_after_the_end(gateway):
    unique = {"key": str(uuid4()), "window": 600, "until": "started"}
    first = submit(gateway, unique=unique).json()
    gateway.ended(first["id"])

    assert submit(gateway, unique=unique).json() | {"created": True} == first


@pytest.mark.parametrize(
    ("after", "end"),
    [
        ({}, "cancelled"),
        ({"otherwise": "run"}, "completed"),
        ({"when": "ended"}, "completed"),
        ({"when": "any"}, "completed"),
    ],
)
def test_a_run_waits_for_others_and_then_does_as_it_was_told(gateway, after, end):
    gateway.post("/api/v1/domains/bells/pause", {})
    good = submit(gateway).json()["id"]
    bad = gateway.post("/api/v1/tasks", {"task": "bells.crack", "args": {"bell": "x"}}).json()["id"]
    run = submit(gateway, after={"runs": [good, bad]} | after).json()["id"]
    waits = state_of(gateway, run)

    gateway.post("/api/v1/domains/bells/resume", {})

    assert waits == "pending"
    assert gateway.ended(run)["status"] == end


def test_a_run_cannot_wait_for_one_that_nobody_knows(gateway):
    before = gateway.recorded()

    answer = submit(gateway, after={"runs": [NOBODY]})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/after/runs"
    assert NOBODY in answer.json()["detail"]
    assert gateway.recorded() == before


def test_moments_are_given_in_seconds_or_as_they_are(gateway):
    now = datetime.now().astimezone()
    there = (now + timedelta(hours=2)).isoformat(timespec="seconds")

    seconds = submit(gateway, delay=3600, expires_in=7200, deadline=10_000).json()["id"]
    moments = submit(gateway, delay=3600, expires_at=there, deadline_at=there).json()["id"]

    late = [(column(gateway, seconds, name) - now).total_seconds() for name in ("run_at", "expires_at", "deadline_at")]
    assert [round(each / 100) * 100 for each in late] == [3600, 7200, 10_000]
    assert column(gateway, moments, "deadline_at") == datetime.fromisoformat(there)


def test_a_run_whose_deadline_passes_while_it_waits_is_cancelled(gateway):
    gateway.post("/api/v1/domains/bells/pause", {})
    run = submit(gateway, deadline=0.2).json()["id"]

    ended = gateway.ended(run)

    gateway.post("/api/v1/domains/bells/resume", {})
    assert ended["status"] == "cancelled"


def test_who_is_to_be_told_of_the_end_is_kept(gateway):
    run = submit(gateway, callback_url="https://example.org/ended?run=1", delay=3600).json()["id"]

    assert column(gateway, run, "callback_url") == "https://example.org/ended?run=1"
    assert column(gateway, run, "awaited")


def test_options_hold_in_a_kick_and_in_a_batch_too(gateway):
    options = {"deadline": 7200, "callback_url": "http://example.org/", "delay": 3600}

    kicked = gateway.post(
        "/api/v1/tasks/bells/kick", {"data": {"times": 1}, "unique": {"key": str(uuid4())}, **options}
    )
    batch = gateway.post("/api/v1/tasks/batch", {"tasks": [RING | options]})

    for run in (kicked.json()["id"], batch.json()["tasks"][0]["id"]):
        assert column(gateway, run, "callback_url") == "http://example.org/"
        assert column(gateway, run, "deadline_at") is not None


def test_a_key_in_the_body_is_the_one_in_the_header(gateway):
    key = str(uuid4())

    header = gateway.post("/api/v1/tasks", RING, **{"Idempotency-Key": key}).json()
    body = submit(gateway, idempotency_key=key).json()
    other = gateway.post("/api/v1/tasks", RING | {"idempotency_key": "another"}, **{"Idempotency-Key": key})

    assert (body["id"], body["created"]) == (header["id"], False)
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (422, "/idempotency_key")


def test_what_the_owner_says_of_uniqueness_holds_over_http(gateway):
    toll = {"task": "bells.toll", "args": {"hour": 12}, "delay": 3600}

    first, same = [gateway.post("/api/v1/tasks", toll).json() for _ in range(2)]
    other, again = gateway.post("/api/v1/tasks/batch", {"tasks": [toll | {"args": {"hour": 1}}, toll]}).json()["tasks"]
    apart = gateway.post("/api/v1/tasks", toll | {"unique": {"key": str(uuid4())}}).json()

    assert [each["created"] for each in (first, same, other, again, apart)] == [True, False, True, False, True]
    assert first["id"] == same["id"] == again["id"]


def test_conditions_hold_in_a_batch(gateway):
    once = RING | {"unique": {"key": str(uuid4())}, "delay": 3600}
    first = submit(gateway, delay=3600).json()["id"]

    answer = gateway.post("/api/v1/tasks/batch", {"tasks": [once, RING | {"after": {"runs": [first]}}, once]})

    runs = answer.json()["tasks"]
    assert answer.status_code == 202
    assert [run["created"] for run in runs] == [True, True, False]
    assert runs[0]["id"] == runs[2]["id"]
    assert column(gateway, runs[1]["id"], "state") == "pending"


def test_a_condition_in_a_batch_that_cannot_be_kept_refuses_all_and_says_where(gateway):
    key = str(uuid4())
    kept = submit(gateway, unique={"key": key}, delay=3600).json()["id"]
    mark = {"labels": {"batch": key}}

    answers = [
        gateway.post("/api/v1/tasks/batch", {"tasks": [RING | mark, RING | mark | condition]})
        for condition in ({"unique": {"key": key, "on_conflict": "reject"}}, {"after": {"runs": [NOBODY]}})
    ]

    told = [(answer.status_code, answer.json()["errors"][0]["pointer"]) for answer in answers]
    assert told == [(409, "/tasks/1"), (422, "/tasks/1/after/runs")]
    assert answers[0].headers["Location"] == f"/api/v1/tasks/{kept}/status"
    assert gateway.http.get("/api/v1/runs", params={"label": f"batch:{key}"}, headers=gateway.auth).json()["runs"] == []
