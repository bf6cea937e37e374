"""What the details of a run tell of others: why it waits, who executed it, what repeats it, whom it submitted."""

from __future__ import annotations

import re
from datetime import datetime

import pytest


def submit(gateway, **more: object) -> str:
    answer = gateway.post("/api/v1/tasks", {"task": "bells.ring", "args": {"times": 1}} | more)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def details(gateway, run: str):
    return gateway.http.get(f"/api/v1/runs/{run}").json()


@pytest.fixture
def held(gateway):
    gateway.post("/api/v1/domains/bells/pause", {"reason": "the tower is shut"})
    yield
    gateway.post("/api/v1/domains/bells/resume", {})


def test_a_waiting_run_tells_whom_it_needs(gateway):
    first = submit(gateway, delay=3600)
    second = submit(gateway, after={"runs": [first]})

    assert details(gateway, second)["needs"] == [
        {"id": first, "task": "bells.ring", "state": "queued", "outcome": None}
    ]

    gateway.post(f"/api/v1/runs/{first}/cancel", {})

    ended = gateway.ended(second)
    assert [need["outcome"] for need in ended["needs"]] == ["cancelled"]


def test_a_run_tells_when_it_goes_on_what_keeps_others_out_and_whom_it_calls_back(gateway):
    first = submit(gateway, delay=3600)
    whole = {"runs": [first], "when": "ended", "otherwise": "run", "delay": 90}
    run = submit(
        gateway, after=whole, unique={"key": "peal of noon"}, callback_url="https://example.org:444/told?token=sesame"
    )

    told, plain = details(gateway, run), details(gateway, first)
    answer = gateway.http.get(f"/api/v1/tasks/{run}").text

    assert told["after"] == {"when": "ended", "otherwise": "run", "delay_seconds": 90}
    assert (told["unique_key"], told["callback_origin"]) == ("peal of noon", "https://example.org:444")
    assert "sesame" not in answer
    assert [plain[name] for name in ("after", "unique_key", "callback_origin", "beat_at", "worker_heard_at")] == [
        None
    ] * 5
    gateway.post(f"/api/v1/runs/{run}/cancel", {})
    gateway.post(f"/api/v1/runs/{first}/cancel", {})


def test_a_run_that_executes_tells_when_its_worker_was_heard_of_and_its_own_last_beat(gateway):
    run = submit(gateway, delay=3600)
    (worker,) = gateway.fetch("select id, heartbeat_at from carillon.workers where domain = 'bells' limit 1")
    beat = '{"attempt": 1, "beat_at": "2026-01-01T00:00:00+00:00"}'
    gateway.fetch(
        "update carillon.runs_live set state = 'running', worker_id = $1, progress = $2 where id = $3 returning id",
        worker["id"], beat, run,
    )  # fmt: skip

    told, status = details(gateway, run), gateway.http.get(f"/api/v1/tasks/{run}/status").json()

    assert datetime.fromisoformat(told["worker_heard_at"]) >= worker["heartbeat_at"]
    assert (told["beat_at"], told["progress"], status["progress"]) == ("2026-01-01T00:00:00Z", None, None)
    gateway.fetch("update carillon.runs_live set state = 'queued', worker_id = null where id = $1 returning id", run)
    gateway.post(f"/api/v1/runs/{run}/cancel", {})


@pytest.mark.usefixtures("held")
def test_a_waiting_run_tells_who_holds_its_domain(gateway):
    run = submit(gateway, delay=3600)

    (hold,) = details(gateway, run)["holds"]

    assert (hold["name"], hold["actor"], hold["reason"]) == ("bells", "local", "the tower is shut")
    assert gateway.http.get("/api/v1/overview").json()["holds"] == [hold]
    gateway.post(f"/api/v1/runs/{run}/cancel", {})
    assert gateway.ended(run)["holds"] == []


def test_a_failed_run_names_its_worker_and_its_replay(gateway):
    run = submit(gateway, task="bells.crack", args={"bell": "old"})
    failed = gateway.ended(run)

    replay = gateway.post(f"/api/v1/runs/{run}/replay", {}).json()["run_id"]
    repeated = gateway.ended(replay)

    (attempt,) = failed["attempts"]
    assert re.fullmatch(r".+, process \d+", attempt["worker"])
    assert (failed["worker"], failed["worker_id"]) == (attempt["worker"], attempt["worker_id"])
    assert repeated["replay_of"] == run
    assert [again["id"] for again in details(gateway, run)["replays"]] == [replay]


def test_a_run_lists_the_runs_that_it_submitted(gateway):
    parent = submit(gateway, delay=3600)
    child = submit(gateway, delay=3600)
    gateway.fetch("update carillon.runs_live set parent_id = $1 where id = $2 returning id", parent, child)

    assert [run["id"] for run in details(gateway, parent)["children"]] == [child]
    assert details(gateway, child)["parent_id"] == parent
