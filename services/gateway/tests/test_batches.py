"""Submitting many runs in one request: all of them, or none."""

from __future__ import annotations

import json

import pytest

BATCH = "/api/v1/tasks/batch"
GOOD = {"task": "bells.ring", "args": {"times": 1}}
MOST_BYTES = 4 * 1024 * 1024


def assert_refused(answer, status):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text


def rings(*times, **more):
    return {"tasks": [{"task": "bells.ring", "args": {"times": n}} | more for n in times]}


def test_the_runs_of_a_batch_are_accepted_in_order_and_executed(gateway):
    answer = gateway.post(BATCH, rings(1, 2, 3, labels={"peal": "batch"}))

    assert answer.status_code == 202
    tasks = answer.json()["tasks"]
    assert [(task["task"], task["created"]) for task in tasks] == [("bells.ring", True)] * 3
    runs = [gateway.ended(task["id"]) for task in tasks]
    assert [run["result"] for run in runs] == [{"times": 1}, {"times": 2}, {"times": 3}]
    assert {(run["actor"], run["labels"]["peal"]) for run in runs} == {("local", "batch")}
    assert gateway.http.get(tasks[2]["status_url"]).json()["status"] == "completed"


def test_a_thousand_runs_fit_and_one_more_does_not(gateway):
    later = {"delay": 3600}
    before = gateway.recorded()[0]

    taken = gateway.post(BATCH, rings(*range(1000), **later))
    refused = gateway.post(BATCH, rings(*range(1001), **later))

    assert taken.status_code == 202
    assert len({task["id"] for task in taken.json()["tasks"]}) == 1000
    assert_refused(refused, 422)
    assert refused.json()["errors"] == [{"pointer": "/tasks", "detail": "must have at most 1000 items"}]
    assert gateway.recorded()[0] == before + 1000


@pytest.mark.parametrize(
    "body",
    [
        {"tasks": []},
        {"tasks": {}},
        {"tasks": [GOOD], "task": "bells.ring"},
        {"tasks": [[GOOD]]},
        {"tasks": [None]},
        {"tasks": [GOOD | {"idempotency_key": ""}]},
        {"tasks": [GOOD | {"idempotency_key": "x" * 256}]},
        {"tasks": [GOOD | {"idempotency_key": "a\n"}]},
        {"tasks": [GOOD | {"idempotency_key": 7}]},
    ],
)
def test_a_batch_of_another_shape_is_refused(gateway, body):
    before = gateway.recorded()

    answer = gateway.post(BATCH, body)

    assert_refused(answer, 422)
    assert gateway.recorded() == before


def test_every_fault_is_listed_up_to_twenty(gateway):
    some = [GOOD if index % 2 else {"task": "bells.ring", "args": {"times": "x"}} for index in range(6)]

    few = gateway.post(BATCH, {"tasks": some}).json()["errors"]
    many = gateway.post(BATCH, {"tasks": some * 20}).json()["errors"]

    assert [error["pointer"] for error in few] == [f"/tasks/{index}/args/times" for index in (0, 2, 4)]
    assert len(many) == 20


def test_a_batch_has_a_limit_of_its_own_and_each_run_in_it_that_of_a_single_one(gateway):
    large = {"task": "bells.ring", "args": {"times": 1, "words": {"a": "x" * 200_000}}, "delay": 3600}
    too_large = {"task": "bells.ring", "args": {"times": 1, "words": {"a": "é" * 140_000}}}

    taken = gateway.post(BATCH, {"tasks": [large] * 5})
    one = gateway.post(BATCH, {"tasks": [GOOD, too_large]})
    all_ = gateway.post(BATCH, json.dumps({"tasks": [GOOD]}).encode().ljust(MOST_BYTES + 1))

    assert taken.status_code == 202
    assert_refused(one, 422)
    assert one.json()["errors"][0]["pointer"] == "/tasks/1/args"
    assert_refused(all_, 413)


def test_a_batch_sent_again_under_its_key_is_the_same_runs(gateway):
    before = gateway.recorded()[0]

    answers = [gateway.post(BATCH, rings(1, 1, delay=3600), **{"Idempotency-Key": "peal"}).json() for _ in range(2)]

    ids = [[task["id"] for task in answer["tasks"]] for answer in answers]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
    assert [[task["created"] for task in answer["tasks"]] for answer in answers] == [[True, True], [False, False]]
    assert gateway.recorded()[0] == before + 2


def test_another_batch_under_a_key_is_refused_whole_and_says_where(gateway):
    gateway.post(BATCH, rings(1, 2, delay=3600), **{"Idempotency-Key": "changes"})
    before = gateway.recorded()

    answer = gateway.post(BATCH, rings(1, 3, 4, delay=3600), **{"Idempotency-Key": "changes"})

    assert_refused(answer, 422)
    assert answer.json()["type"] == "/docs#problem-idempotency-key-reused"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/tasks/1"]
    assert gateway.recorded() == before


def test_a_run_of_a_batch_with_a_key_of_its_own_is_that_of_a_single_submit(gateway):
    single = gateway.post("/api/v1/tasks", GOOD, **{"Idempotency-Key": "one bell"}).json()

    batch = gateway.post(BATCH, {"tasks": [GOOD | {"idempotency_key": "one bell"}]}).json()["tasks"]

    assert [(task["id"], task["created"]) for task in batch] == [(single["id"], False)]


def test_submits_of_a_batch_are_counted(gateway):
    def submitted():
        text = gateway.http.get("/metrics").text
        line = next(
            x for x in text.splitlines() if x.startswith('carillon_runs_submitted_total{task_name="bells.ring"')
        )
        return float(line.split()[-1])

    gateway.post(BATCH, rings(1, delay=3600))
    before = submitted()
    gateway.post(BATCH, rings(1, 2, 3, delay=3600))

    assert submitted() == before + 3
