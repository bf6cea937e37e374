"""Workflows over HTTP: their steps, their graph, all of them, and what they ask people."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from carillon import Retry, Tasks, Workflow
from carillon.errors import PermanentError, TransientError
from carillon.settings import PlatformSettings

NOBODY = "00000000-0000-0000-0000-000000000000"

tasks = Tasks("tower")


@tasks.task(retry=Retry(attempts=1))
async def strike(bell: str) -> str:
    """Strike a bell.

    Safe to run twice: it only returns.
    """
    return bell


@tasks.task(retry=Retry(attempts=1))
async def crack(bell: str) -> None:
    """Break a bell.

    Safe to run twice: it never works.
    """
    message = f"the bell {bell} cracked"
    raise PermanentError(message)


@tasks.task(retry=Retry(attempts=1))
async def hush(bell: str) -> None:
    """Take a strike back, which never works.

    Safe to run twice: it never works.
    """
    message = f"nothing hushes {bell}"
    raise TransientError(message)


@tasks.workflow(default=True)
async def chime(bells: list[str], *, flow: Workflow) -> int:
    """Strike bells side by side, once somebody agrees."""
    decision = await flow.approval("Shall the bells chime?", timeout=timedelta(days=1))
    if not decision.approved:
        return 0
    batch = await flow.map(strike, bells)
    return len(batch.successful)


@tasks.workflow()
async def peal(bell: str, *, flow: Workflow) -> None:
    """Strike a bell that cracks, and hush it."""
    async with flow.saga() as saga:
        await saga.step(strike, bell, undo=hush)
        await saga.step(crack, bell)


@tasks.workflow()
async def ask_twice(*, flow: Workflow) -> None:
    """Ask two things at once."""
    await asyncio.gather(flow.approval("Shall the great bell ring?"), flow.approval("Shall the small bell ring?"))


@pytest.fixture(scope="module")
def tower(gateway, settled_url, at_work):
    """The gateway, while the tower is at work."""
    settings = PlatformSettings(database_url=settled_url, rabbit_url=None, rabbit_host=None)
    with at_work(settings, "tower", tasks):
        gateway.until("/api/v1/tasks", lambda answer: any(task["name"] == "tower.peal" for task in answer["tasks"]))
        yield gateway


def begun(gateway, task="tower.chime", **args):
    args = args or ({"bells": ["great"]} if task == "tower.chime" else {})
    run = gateway.post("/api/v1/tasks", {"task": task, "args": args}).json()["id"]
    gateway.until(f"/api/v1/runs/{run}", lambda found: found["status"] == "pending" or found["finished_at"])
    return run


def decide(gateway, run, seq=1, **body):
    return gateway.post(f"/api/v1/workflows/{run}/steps/{seq}/decision", body)


def test_a_workflow_tells_its_steps_and_what_it_waits_for(tower):
    run = begun(tower)

    told = tower.http.get(f"/api/v1/workflows/{run}").json()

    (step,) = told["steps"]
    assert (told["run"]["id"], told["run"]["state"], told["version"]) == (run, "pending", 1)
    assert (told["waits_for"], told["counts"]) == ("It waits for 1 approval", {"waiting": 1})
    assert (step["seq"], step["kind"], step["name"]) == (1, "approval", "Shall the bells chime?")
    assert step["waits_for"].startswith("It waits for somebody to approve it, until 20")
    assert tower.http.get(f"/api/v1/runs/{run}").json()["is_workflow"] is True
    decide(tower, run, approve=False)
    assert tower.ended(run)["result"] == 0


def test_steps_come_page_by_page_with_a_cursor_of_that_workflow_alone(tower):
    run = begun(tower, bells=[str(n) for n in range(9)])
    decide(tower, run, approve=True)
    tower.ended(run)

    first = tower.http.get(f"/api/v1/workflows/{run}?limit=4").json()
    cursor = first["next_cursor"]
    rest = tower.http.get(f"/api/v1/workflows/{run}?cursor={cursor}").json()
    other = tower.http.get(f"/api/v1/workflows/{begun(tower)}?cursor={cursor}")

    assert [step["seq"] for step in first["steps"] + rest["steps"]] == list(range(1, 11))
    assert (first["counts"], rest["next_cursor"]) == ({"completed": 10}, None)
    assert [(step["after"], step["beside"]) for step in first["steps"][:3]] == [([], None), ([1], None), ([], 2)]
    assert other.status_code == 422
    assert other.json()["errors"][0]["pointer"] == "cursor"


def test_the_graph_has_a_box_for_what_is_many(tower):
    run = begun(tower, bells=[str(n) for n in range(9)])
    decide(tower, run, approve=True)
    tower.ended(run)

    asked, struck = tower.http.get(f"/api/v1/workflows/{run}/graph").json()["boxes"]

    assert (asked["kind"], asked["layer"], asked["after"], asked["counts"]) == ("approval", 0, [], {"completed": 1})
    assert asked["step"]["result"]["by"] == "local"
    assert (struck["name"], struck["first"], struck["last"], struck["step"]) == ("tower.strike", 2, 10, None)
    assert (struck["layer"], struck["after"], struck["counts"]) == (1, [1], {"completed": 9})


@pytest.mark.parametrize("path", ["", "/graph"])
def test_a_run_that_is_no_workflow_has_no_steps(tower, path):
    run = tower.post("/api/v1/tasks", {"task": "tower.strike", "args": {"bell": "great"}}).json()["id"]

    answers = [tower.http.get(f"/api/v1/workflows/{id_}{path}") for id_ in (run, NOBODY, "nothing")]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert "is no workflow, but one of the task tower.strike" in answers[0].json()["detail"]
    assert tower.http.get(f"/api/v1/runs/{run}").json()["is_workflow"] is False


def test_workflows_are_listed_newest_first_and_page_by_page(tower):
    older, newer = begun(tower), begun(tower)

    first = tower.http.get("/api/v1/workflows?state=pending&limit=1").json()
    second = tower.http.get(f"/api/v1/workflows?state=pending&limit=1&cursor={first['next_cursor']}").json()

    assert [page["workflows"][0]["id"] for page in (first, second)] == [newer, older]
    listed = tower.http.get("/api/v1/workflows?task=tower.peal").json()["workflows"]
    assert {run["task"] for run in listed} <= {"tower.peal"}
    assert tower.http.get("/api/v1/workflows?task=tower.strike").json()["workflows"] == []
    assert tower.http.get("/api/v1/workflows?state=asleep").status_code == 422


def test_what_waits_for_people_is_listed_longest_first_and_page_by_page(tower):
    for run in {row["workflow_id"] for row in tower.http.get("/api/v1/approvals?limit=200").json()["approvals"]}:
        tower.post(f"/api/v1/runs/{run}/cancel", {})
        tower.ended(run)
    runs = [begun(tower) for _ in range(3)]

    first = tower.http.get("/api/v1/approvals?limit=2").json()
    rest = tower.http.get(f"/api/v1/approvals?limit=2&cursor={first['next_cursor']}").json()
    forged = tower.http.get(f"/api/v1/approvals?cursor={first['next_cursor'][:-2]}AA")

    assert [row["workflow_id"] for row in first["approvals"] + rest["approvals"]] == runs
    assert rest["next_cursor"] is None
    assert (first["approvals"][0]["question"], first["approvals"][0]["kind"]) == ("Shall the bells chime?", "approval")
    assert forged.status_code == 422


def test_a_decision_is_audited_told_to_the_workflow_and_made_once(tower):
    run = begun(tower)

    first = decide(tower, run, approve=True, reason="it is noon")
    again = decide(tower, run, approve=False)

    assert (first.status_code, first.json()) == (200, {"workflow_id": run, "seq": 1, "approved": True})
    assert again.status_code == 409
    assert "was decided by local already" in again.json()["detail"]
    assert tower.ended(run)["result"] == 1
    step = tower.http.get(f"/api/v1/workflows/{run}").json()["steps"][0]
    assert (step["result"]["by"], step["result"]["reason"]) == ("local", "it is noon")
    (entry,) = tower.fetch("select action, actor, origin, reason from carillon.audit where subject = $1", run)
    assert tuple(entry) == ("workflow.approved", "local", "gateway, asked from 127.0.0.1", "it is noon")


def test_what_waits_for_no_decision_is_refused_with_the_reason(tower):
    run = begun(tower)
    plain = tower.post("/api/v1/tasks", {"task": "tower.strike", "args": {"bell": "great"}}).json()["id"]

    answers = [
        decide(tower, *where, approve=True)
        for where in ((run, 7), (run, 0), (run, "x"), (run, 10**9), (plain, 1), (NOBODY, 1))
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert "has no step 7" in answers[0].json()["detail"]
    assert "is no workflow" in answers[4].json()["detail"]


def test_a_decision_takes_a_key_and_a_word(tower):
    run = begun(tower)
    path = f"/api/v1/workflows/{run}/steps/1/decision"

    without = tower.http.post(path, json={"approve": True})
    misfits = [tower.post(path, body) for body in ({}, {"approve": "yes"}, {"approve": True, "more": 1}, b"")]

    assert without.status_code == 401
    assert {answer.status_code for answer in misfits} <= {400, 422}
    assert tower.http.get(f"/api/v1/workflows/{run}").json()["steps"][0]["state"] == "waiting"


def test_a_repair_is_asked_for_and_decided_like_an_approval(tower):
    run = begun(tower, "tower.peal", bell="great")

    asked = tower.until(
        f"/api/v1/workflows/{run}", lambda told: any(step["kind"] == "repair" for step in told["steps"])
    )
    repair = asked["steps"][-1]
    listed = [
        row for row in tower.http.get("/api/v1/approvals?limit=200").json()["approvals"] if row["kind"] == "repair"
    ]
    decided = decide(tower, run, repair["seq"], approve=False, reason="hushed by hand")

    assert [(step["name"], step["state"]) for step in asked["steps"][:3]] == [
        ("tower.strike", "completed"), ("tower.crack", "failed"), ("tower.hush", "failed"),
    ]  # fmt: skip
    assert repair["waits_for"] == "It waits for somebody to say whether it is tried again"
    assert (listed[0]["workflow_id"], listed[0]["seq"]) == (run, 4)
    assert listed[0]["question"].startswith("tower.hush, which takes back tower.strike, failed. Try again?")
    assert decided.status_code == 200
    assert tower.ended(run)["status"] == "failed"


@pytest.fixture
def commanded(tower):
    """Runs the command line against this gateway; gives the exit code and what was printed."""
    settings = {"CARILLON_URL": tower.url, "CARILLON_KEY": tower.key}

    def run(*words):
        command = [Path(sys.executable).with_name("carillon"), *words]
        done = subprocess.run(
            command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout or done.stderr

    return run


def test_the_command_line_lists_what_is_asked_and_approves_it(tower, commanded):
    run = begun(tower)

    code, listed = commanded("approvals", "--limit", "500", "--json")
    done = commanded("workflows", "approve", run, "--reason", "it is noon")

    assert code == 0
    assert run in {json.loads(line)["workflow_id"] for line in listed.splitlines()}
    assert done == (0, f"Step 1 of {run} is approved; the workflow goes on.\n")
    assert tower.ended(run)["result"] == 1
    (entry,) = tower.fetch("select action, reason from carillon.audit where subject = $1", run)
    assert tuple(entry) == ("workflow.approved", "it is noon")


def test_the_command_line_refuses_a_step_by_its_number(tower, commanded):
    run = begun(tower)

    assert commanded("workflows", "refuse", run, "--step", "1")[0] == 0
    assert tower.ended(run)["result"] == 0


def test_the_command_line_says_what_cannot_be_decided(tower, commanded):
    asks, ended = begun(tower, "tower.ask_twice"), begun(tower)
    tower.post(f"/api/v1/runs/{ended}/cancel", {})
    tower.ended(ended)

    several = commanded("workflows", "approve", asks)
    nothing = commanded("workflows", "approve", ended)
    wrong = commanded("workflows", "approve", asks, "--step", "9")

    assert several[0] == 2
    assert "asks several things; name one with --step: 1, 2." in several[1]
    assert nothing[0] == 1
    assert "asks nothing" in nothing[1]
    assert wrong[0] == 1
    assert "has no step 9" in wrong[1]


def refused_chime(gateway):
    """A workflow that was refused, and has ended."""
    run = begun(gateway)
    decide(gateway, run, approve=False)
    gateway.ended(run)
    return run


def test_a_fork_goes_on_from_a_step_as_a_run_of_its_own_once(tower):
    run = refused_chime(tower)

    first, again = (tower.post(f"/api/v1/workflows/{run}/fork", {"step": 1, "reason": "now"}) for _ in range(2))

    made = first.json()
    assert (first.status_code, first.headers["location"]) == (202, made["status_url"])
    assert (made["fork_of"], made["task"], made["created"]) == (run, "tower.chime", True)
    assert again.json() == made | {"created": False}
    tower.until(f"/api/v1/runs/{made['run_id']}", lambda found: found["status"] == "pending")
    assert decide(tower, made["run_id"], approve=True).status_code == 200
    assert tower.ended(made["run_id"])["result"] == 1
    assert tower.ended(made["run_id"])["replay_of"] == run
    entries = tower.fetch("select action, reason from carillon.audit where subject = $1 order by seq", run)
    assert [tuple(entry) for entry in entries][-1] == ("workflow.forked", "now")


def test_a_fork_keeps_the_steps_before(tower):
    run = begun(tower)
    decide(tower, run, approve=True)
    tower.ended(run)

    made = tower.post(f"/api/v1/workflows/{run}/fork", {"step": 2}).json()["run_id"]

    assert tower.ended(made)["result"] == 1
    asked, struck = tower.http.get(f"/api/v1/workflows/{made}").json()["steps"]
    assert (asked["kind"], asked["result"]["by"]) == ("approval", "local")
    assert struck["run_id"] != tower.http.get(f"/api/v1/workflows/{run}").json()["steps"][1]["run_id"]


def test_what_cannot_be_forked_is_refused_with_the_reason(tower):
    lives, ended = begun(tower), refused_chime(tower)
    plain = tower.post("/api/v1/tasks", {"task": "tower.strike", "args": {"bell": "great"}}).json()["id"]
    tower.ended(plain)

    answers = [
        tower.post(f"/api/v1/workflows/{run}/fork", body)
        for run, body in ((lives, {}), (plain, {}), (NOBODY, {}), (ended, {"step": 9}), (ended, {"step": 0}))
    ]

    assert [answer.status_code for answer in answers] == [409, 409, 404, 422, 422]
    assert "has not ended" in answers[0].json()["detail"]
    assert answers[3].json()["errors"][0]["pointer"] == "/step"
    assert tower.http.post(f"/api/v1/workflows/{ended}/fork").status_code == 401


def test_the_command_line_forks(tower, commanded):
    run = refused_chime(tower)

    code, told = commanded("workflows", "fork", run, "--step", "1")

    (made,) = tower.http.get(f"/api/v1/runs/{run}").json()["replays"]
    assert (code, told) == (0, f"{run} goes on from a step of it as {made['id']}.\n")
