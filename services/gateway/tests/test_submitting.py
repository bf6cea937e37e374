"""Submitting runs and following them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest


@pytest.fixture
def limited(gateway):
    """Limits as a domain registers them, for as long as a test looks at them."""
    limits = (
        '{"limits": {"concurrency": 3, "key": "hour", "rate_per_key": {"number": 1, "per_seconds": 60, "burst": 1}}}'
    )
    task = "update carillon.tasks set policy = {} where name = 'bells.toll' returning name"
    domain = "update carillon.domains set concurrency = {} where name = 'bells' returning name"
    gateway.fetch(task.format("policy || $1::jsonb"), limits)
    gateway.fetch(domain.format("$1"), 7)
    yield
    gateway.fetch(task.format("policy - 'limits'"))
    gateway.fetch(domain.format("null"))


@pytest.mark.usefixtures("limited")
def test_the_catalogue_shows_the_limits_of_a_task_and_of_its_domain(gateway):
    tasks = {task["name"]: task for task in gateway.http.get("/api/v1/tasks").json()["tasks"]}

    assert tasks["bells.toll"]["limits"] == {
        "concurrency": 3,
        "key": "hour",
        "per_key": None,
        "rate": None,
        "rate_per_key": {"number": 1, "per_seconds": 60, "burst": 1},
        "told": "at most 3 at once; 1 start in 60 s for each hour",
    }
    assert (tasks["bells.ring"]["limits"], tasks["bells.ring"]["domain_limit"]) == (None, 7)
    (bells,) = [one for one in gateway.http.get("/api/v1/overview").json()["domains"] if one["name"] == "bells"]
    assert bells["limit"] == 7


def test_the_catalogue_shows_what_each_task_takes_hears_and_says(gateway):
    tasks = {task["name"]: task for task in gateway.http.get("/api/v1/tasks").json()["tasks"]}

    assert tasks["bells.ring"]["schema"]["required"] == ["times"]
    assert tasks["bells.ring"]["doc"].startswith("Ring a bell.")
    assert tasks["bells.ring"]["says"] == ["bells.bell_rung.v1"]
    assert tasks["bells.write_down"]["hears"] == "bells.bell_rung.v1"
    assert tasks["bells.crack"]["policy"]["attempts"] == 1


def test_a_submitted_run_is_executed_and_its_details_tell_the_whole_story(gateway):
    answer = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 3}, "labels": {"tower": "north"}})

    assert answer.status_code == 202
    assert answer.json()["task_id"] == answer.json()["id"]
    assert answer.headers["location"] == answer.json()["status_url"]
    run = gateway.ended(answer.json()["id"])
    assert (run["status"], run["result"], run["args"]) == ("completed", {"times": 3}, {"times": 3})
    assert (run["actor"], run["labels"], run["attempts"][0]["outcome"]) == ("local", {"tower": "north"}, "completed")
    said = run["said"][0]
    assert (said["event"]["type"], said["data"]) == ("bells.bell_rung.v1", {"times": 3})
    answered = gateway.ended(said["answers"][0]["id"])
    assert answered["task"] == "bells.write_down"
    assert answered["cause"]["run_id"] == run["id"]


def test_a_failed_run_says_why(gateway):
    id_ = gateway.post("/api/v1/tasks", {"task": "bells.crack", "args": {"bell": "old"}}).json()["id"]

    run = gateway.ended(id_)

    assert run["error"]["message"] == "the bell old cracked"
    status = gateway.http.get(f"/api/v1/tasks/{id_}/status").json()
    assert (status["status"], status["error"]) == ("failed", "the bell old cracked")


def test_a_kick_without_a_task_means_the_default_one(gateway):
    answer = gateway.post("/api/v1/tasks/bells/kick", {"data": {"times": 1}})

    assert answer.status_code == 202
    assert gateway.http.get(answer.json()["status_url"]).json()["task"] == "bells.ring"


def test_a_kick_may_name_its_task_with_or_without_the_domain(gateway):
    for name in ("crack", "bells.crack"):
        answer = gateway.post("/api/v1/tasks/bells/kick", {"task": name, "data": {"bell": "b"}})

        assert answer.json()["task"] == "bells.crack"


def test_a_delayed_run_waits(gateway):
    answer = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 1}, "delay": 3600})

    status = gateway.http.get(answer.json()["status_url"]).json()

    assert status["status"] == "queued"
    assert status["run_at"] > status["created_at"]


def test_fifty_identical_requests_at_once_are_one_run(gateway):
    body = {"task": "bells.ring", "args": {"times": 7}}
    before, _ = gateway.recorded()

    with ThreadPoolExecutor(25) as crowd:
        sent = [crowd.submit(gateway.post, "/api/v1/tasks", body, **{"Idempotency-Key": "noon"}) for _ in range(50)]
        answers = [one.result() for one in sent]

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(answer.json()["created"] for answer in answers) == 1
    run = gateway.ended(answers[0].json()["id"])
    gateway.ended(run["said"][0]["answers"][0]["id"])
    assert gateway.recorded()[0] == before + 2


def test_an_idempotency_key_for_other_arguments_is_refused(gateway):
    gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 1}}, **{"Idempotency-Key": "used"})

    answer = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 2}}, **{"Idempotency-Key": "used"})

    assert answer.status_code == 422
    assert answer.json()["type"] == "/docs#problem-idempotency-key-reused"


@pytest.mark.parametrize("other", [{"callback_url": "https://example.org/ended"}, {"unique": {"key": "nave"}}])
def test_an_idempotency_key_for_another_who_is_told_or_another_unique_key_is_refused(gateway, other):
    key = {"Idempotency-Key": f"told {sorted(other)}"}
    body = {"task": "bells.ring", "args": {"times": 1}, "delay": 3600}
    first = gateway.post("/api/v1/tasks", body, **key)

    answer = gateway.post("/api/v1/tasks", body | other, **key)
    batch = gateway.post("/api/v1/tasks/batch", {"tasks": [body | {"idempotency_key": key["Idempotency-Key"]} | other]})
    again = gateway.post("/api/v1/tasks", body | {"delay": 60, "priority": "high", "labels": {"a": "b"}}, **key)

    assert [refused.status_code for refused in (answer, batch)] == [422, 422]
    assert "callback_url" in answer.json()["detail"]
    assert "callback_url" in batch.json()["detail"]
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_the_trace_of_a_request_goes_on_in_its_run(gateway):
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    answer = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 1}}, traceparent=given)

    run = gateway.http.get(f"/api/v1/runs/{answer.json()['id']}").json()
    assert run["traceparent"].split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    assert run["traceparent"].split("-")[2] != "b7ad6b7169203331"


def test_searching_pages_through_everything_once(gateway):
    bodies = [{"task": "bells.ring", "args": {"times": n}, "labels": {"peal": "five"}} for n in range(5)]
    ids = {gateway.post("/api/v1/tasks", body).json()["id"] for body in bodies}
    found, cursor = [], None

    while True:
        query = {"label": "peal:five", "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = gateway.http.get("/api/v1/runs", params=query).json()
        found += [run["id"] for run in page["runs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert len(found) == 5
    assert set(found) == ids
    assert found == sorted(found, key=lambda id_: UUID(id_).int, reverse=True)


def test_a_search_takes_states_times_and_the_address_of_the_specification(gateway):
    gateway.ended(gateway.post("/api/v1/tasks", {"task": "bells.crack", "args": {"bell": "x"}}).json()["id"])

    failed = gateway.http.get("/api/v1/tasks/history?state=failed&state=cancelled&domain=bells").json()["runs"]
    none = gateway.http.get("/api/v1/runs?since=2020-01-01T00:00:00Z&until=2020-01-02T00:00:00Z").json()["runs"]

    assert {run["state"] for run in failed} == {"failed"}
    assert none == []


def test_a_cursor_belongs_to_its_search_and_cannot_be_made_up(gateway):
    for n in range(2):
        gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": n}})
    cursor = gateway.http.get("/api/v1/runs?task=bells.ring&limit=1").json()["next_cursor"]
    forged = ("A" if cursor[0] != "A" else "B") + cursor[1:]

    elsewhere = f"task=bells.crack&limit=1&cursor={cursor}"
    for query in (elsewhere, f"task=bells.ring&cursor={forged}", "cursor=x", "cursor=%00"):
        assert gateway.http.get(f"/api/v1/runs?{query}").status_code == 422


def test_searches_that_do_not_fit_are_refused(gateway):
    for query in (
        "limit=0", "limit=-1", "limit=1000000000", "limit=ten", "limit=1&limit=2", "state=' OR 1=1--", "sort=;DROP",
        "since=2026-01-01", "since=2026-02-30T00:00:00Z", "since=2026-02-02T00:00:00Z&until=2026-02-01T00:00:00Z",
        "task=%00", "label=novalue", "domain=",
    ):  # fmt: skip
        assert gateway.http.get(f"/api/v1/runs?{query}").status_code == 422, query


def test_ids_that_are_none_are_not_found(gateway):
    for id_ in ("null", "undefined", "' OR 1=1--", "x" * 10_000, "00000000-0000-0000-0000-000000000000", "%00"):
        for path in (f"/api/v1/tasks/{id_}/status", f"/api/v1/tasks/{id_}", f"/api/v1/runs/{id_}"):
            assert gateway.http.get(path).status_code == 404, path
