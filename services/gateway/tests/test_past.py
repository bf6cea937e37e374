"""Searching by every filter, the history of a run, and statistics."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from obstore.store import LocalStore

from carillon.ids import new_id
from carillon.stored_results import StoredResults, is_large
from carillon.testing.blocking import wait_for

STATISTICS = "/api/v1/statistics"


def found(gateway, **query: object) -> list[str]:
    answer = gateway.http.get("/api/v1/runs", params=query)
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["runs"]]


@pytest.fixture
def rung(gateway):
    """The details of a run that completed, with arguments that no other run has."""
    body = {"task": "bells.ring", "args": {"times": 4711, "words": {"who": {"name": "ada: the first"}}}}
    run = gateway.post("/api/v1/tasks", body | {"priority": "high"}).json()["id"]
    yield gateway.ended(run)
    gateway.fetch("delete from carillon.runs where id = $1 returning id", run)


@pytest.fixture
def run_of_size(gateway):
    """Makes runs whose result has so many characters, as a worker that shares the gateway's storage ends them."""

    async def put(run: UUID, text: str) -> str:
        storage = StoredResults(lambda: LocalStore(prefix=gateway.storage, mkdir=True))
        return await storage.put(run, 1, text) if is_large(text) else text

    def make(size: int) -> dict[str, Any]:
        run = new_id()
        result = wait_for(put(run, json.dumps("x" * size)))
        gateway.fetch(
            "insert into carillon.runs (id, ended_on, domain, task, state, args, result, finished_at) "
            "values ($1, '2026-03-01', 'bells', 'bells.ring', 'completed', '{}', $2::text::jsonb, '2026-03-01')",
            run, result,
        )  # fmt: skip
        return gateway.http.get(f"/api/v1/runs/{run}").json()

    yield make
    gateway.fetch("delete from carillon.runs where ended_on = '2026-03-01'")


def test_an_argument_is_found_by_its_path_as_number_or_text(gateway, rung):
    assert found(gateway, arg="times:4711") == [rung["id"]]
    assert found(gateway, arg=["times:4711", "words.who.name:ada: the first"]) == [rung["id"]]
    assert found(gateway, arg='times:"4711"') == []
    assert found(gateway, arg=["times:4711", "words.who.name:bob"]) == []


def test_every_other_filter_chooses_too(gateway, rung):
    worker = rung["attempts"][0]["worker_id"]
    mine = {"arg": "times:4711"}

    for fits in (
        {"worker": worker}, {"priority": "high"}, {"longer": "0"}, {"shorter": "60.5"},
        {"finished_since": rung["finished_at"]}, {"finished_until": "2999-01-01T00:00:00Z"},
    ):  # fmt: skip
        assert found(gateway, **mine, **fits) == [rung["id"]], fits
    for other in (
        {"worker": rung["id"]}, {"priority": "low"}, {"longer": "60"}, {"shorter": "0"}, {"parent": rung["id"]},
        {"finished_until": rung["finished_at"]}, {"fingerprint": "x"}, {"unique_key": "x"}, {"replay_of": rung["id"]},
    ):  # fmt: skip
        assert found(gateway, **mine, **other) == [], other


@pytest.mark.parametrize(
    "query",
    [
        "arg=times", "arg=:1", "arg=a..b:1", "arg=a:1&arg=a:2", "arg=" + "a." * 10 + "a:1", 'arg=a:"%5Cu0000"',
        "longer=-1", "longer=x", "longer=1e5", "longer=NaN", "longer=99999999999", "longer=2&shorter=2", "shorter=",
        "worker=7", "parent=null", "replay_of=%00", "priority=3", "priority=HIGH", "unique_key=", "fingerprint=%0A",
        "finished_since=yesterday", "finished_since=2026-02-02T00:00:00Z&finished_until=2026-02-01T00:00:00Z",
        "since=0001-01-01T00:00:00%2B23:59", "domain=bells&until=0001-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_a_filter_that_does_not_fit_is_refused_and_named(gateway, query):
    answer = gateway.http.get(f"/api/v1/runs?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].split("/")[0] in {*query.replace("=", "&").split("&"), "query"}


def test_the_history_of_a_run_is_told_in_order(gateway, rung):
    changes = gateway.http.get(f"/api/v1/runs/{rung['id']}/history").json()["changes"]

    assert [(change["state"], change["what"]) for change in changes] == [
        ("queued", "accepted"),
        ("running", "attempt 1 started"),
        ("completed", "ended completed"),
        (None, "said bells.bell_rung.v1"),
    ]
    assert changes[0]["by"] == "local"
    assert changes[1]["by"] == f"worker {rung['attempts'][0]['worker_id']}"
    assert gateway.http.get("/api/v1/runs/00000000-0000-0000-0000-000000000000/history").status_code == 404


def test_statistics_count_what_ended_in_the_window(gateway, rung):
    before, until = rung["finished_at"], "2999-01-01T00:00:00Z"

    told = gateway.http.get(STATISTICS, params={"task": "bells.ring"}).json()
    none = gateway.http.get(
        STATISTICS, params={"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}
    ).json()

    (task,) = told["tasks"]
    assert (told["share"], task["task"], task["total"]["failure_rate"]) == (1, "bells.ring", 0)
    assert told["total"]["counts"]["completed"] == sum(b["counts"]["completed"] for b in told["buckets"]) >= 1
    assert 0 <= task["duration"]["p50"] <= task["duration"]["p99"]
    assert task["total"]["retried"] == told["total"]["retried"] == 0
    assert 0 < task["total"]["seconds"] == told["total"]["seconds"]
    assert (none["total"]["counts"], none["tasks"]) == ({}, [])
    assert gateway.http.get(STATISTICS, params={"since": before, "until": until}).status_code == 422


@pytest.mark.parametrize(
    "query",
    ["since=x", "since=2999-01-01T00:00:00Z", "until=2026-01-01", "days=7", "task=", "until=0001-01-01T00:00:00Z"],
)
def test_a_window_that_does_not_fit_is_refused(gateway, query):
    assert gateway.http.get(f"{STATISTICS}?{query}").status_code == 422


LARGE = 300_000


def test_a_large_result_is_read_at_an_address_of_its_own(gateway, run_of_size):
    small, large = run_of_size(10), run_of_size(LARGE)
    url = large["stored_result"]["url"]

    assert (small["result"], small["stored_result"]) == ("x" * 10, None)
    assert (large["result"], large["stored_result"]["bytes"]) == (None, LARGE + 2)
    assert url == f"/api/v1/runs/{large['id']}/result"
    assert gateway.http.get(url).json() == "x" * LARGE
    assert gateway.http.get(f"/api/v1/runs/{small['id']}/result").json() == "x" * 10


def test_the_results_of_deleted_runs_are_deleted_from_storage(gateway, run_of_size):
    runs = [run_of_size(LARGE), run_of_size(LARGE), run_of_size(10)]
    results = [next((gateway.storage / "results").rglob(f"{run['id']}-1.json")) for run in runs[:2]]
    # What is gone already keeps nothing else from going.
    results[0].unlink()
    wanted = {"task": "bells.ring", "finished_until": "2026-03-02T00:00:00Z"}
    token = gateway.post("/api/v1/selections", {"action": "delete", "filters": wanted}).json()["token"]

    answer = gateway.post(f"/api/v1/selections/{token}/act", {})

    assert (answer.status_code, answer.json()["done"], answer.json()["remaining"]) == (200, 3, 0)
    assert not results[1].exists()
    assert [gateway.http.get(f"/api/v1/runs/{run['id']}").status_code for run in runs] == [404] * 3


def test_a_run_without_a_result_has_none_to_read(gateway, run_of_size):
    cracked = gateway.ended(gateway.post("/api/v1/tasks", {"task": "bells.crack", "args": {"bell": "x"}}).json()["id"])
    large = run_of_size(LARGE)
    next((gateway.storage / "results").rglob(f"{large['id']}-1.json")).unlink()

    for run in (cracked["id"], large["id"], "00000000-0000-0000-0000-000000000000"):
        answer = gateway.http.get(f"/api/v1/runs/{run}/result")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_the_documents_say_what_the_past_can_be_asked(gateway):
    paths = gateway.http.get("/openapi.json").json()["paths"]

    asked = {parameter["name"] for parameter in paths["/api/v1/runs"]["get"]["parameters"]}
    assert {"arg", "longer", "finished_since", "worker", "unique_key", "priority", "cursor"} <= asked
    assert {"since", "until", "task", "domain"} == {p["name"] for p in paths[STATISTICS]["get"]["parameters"]}
    assert "RunHistory" in str(paths["/api/v1/runs/{id}/history"]["get"]["responses"]["200"])
    assert list(paths["/api/v1/runs/{id}/result"]["get"]["responses"]["200"]["content"]) == ["application/json"]
