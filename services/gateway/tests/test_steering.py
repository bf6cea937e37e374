"""Steering over HTTP: runs, queues, dead letters, and many runs at once."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

NOBODY = "00000000-0000-0000-0000-000000000000"


def submit(gateway, task="bells.ring", labels=None, **options):
    args = {"times": 1} if task == "bells.ring" else {"bell": "old"}
    body = {"task": task, "args": args, **({"labels": labels} if labels else {}), **options}
    answer = gateway.post("/api/v1/tasks", body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def waiting(gateway, **more):
    return submit(gateway, delay=3600, **more)


def failed(gateway, **more):
    run = submit(gateway, "bells.crack", **more)
    gateway.ended(run)
    return run


def on(gateway, run, word, body=None):
    return gateway.post(f"/api/v1/runs/{run}/{word}", {} if body is None else body)


def audited(gateway, subject):
    rows = gateway.fetch(
        "select action, actor, origin, reason from carillon.audit where subject = $1 order by seq", subject
    )
    return [tuple(row) for row in rows]


FROM = "gateway, asked from 127.0.0.1"


def test_a_run_is_cancelled_with_a_reason_that_the_trail_keeps(gateway):
    run = waiting(gateway)

    first, again = (on(gateway, run, "cancel", {"reason": "not needed"}) for _ in range(2))

    assert (first.status_code, first.json()) == (200, {"run_id": run, "state": "cancelled", "cancelled": 1, "asked": 0})
    assert (again.status_code, again.json()["cancelled"]) == (200, 0)
    assert gateway.ended(run)["error"]["message"] == "cancelled by local: not needed"
    assert audited(gateway, run) == [("run.cancelled", "local", FROM, "not needed")]


def test_a_run_is_paused_and_goes_on_when_it_is_resumed(gateway):
    run = waiting(gateway)

    words = [on(gateway, run, word) for word in ("pause", "pause", "resume", "resume")]

    assert [(answer.status_code, answer.json()["state"]) for answer in words] == [
        (200, "paused"), (200, "paused"), (200, "queued"), (200, "queued"),
    ]  # fmt: skip
    assert [entry[0] for entry in audited(gateway, run)] == ["run.paused", "run.resumed"]


def test_a_failed_run_is_run_again_with_other_arguments_once(gateway):
    run = failed(gateway)
    body = {"args": {"bell": "mended"}, "reason": "mended"}
    # A replay that has failed by then could be repeated itself.
    gateway.post("/api/v1/tasks/bells.crack/pause", {})

    with ThreadPoolExecutor(10) as crowd:
        sent = [crowd.submit(on, gateway, run, "replay", body) for _ in range(10)]
        answers = [one.result() for one in sent]
    gateway.post("/api/v1/tasks/bells.crack/resume", {})

    assert {answer.status_code for answer in answers} == {202}
    (made,) = {answer.json()["run_id"] for answer in answers}
    assert sum(answer.json()["created"] for answer in answers) == 1
    assert answers[0].json()["replay_of"] == run
    assert gateway.ended(made)["args"] == {"bell": "mended"}
    assert audited(gateway, run) == [("run.replayed", "local", FROM, "mended")]


def test_arguments_of_a_replay_have_to_fit_the_task(gateway):
    run = failed(gateway)
    before = gateway.recorded()

    answers = [on(gateway, run, "replay", {"args": args}) for args in ({"bell": 7}, {"bell": "x", "more": 1}, {})]

    for answer in answers:
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith("/args")
    assert gateway.recorded() == before


def test_a_replay_that_lives_is_no_answer_to_a_wish_for_other_arguments(gateway):
    gateway.post("/api/v1/tasks/bells.crack/pause", {})
    run = waiting(gateway, task="bells.crack")
    on(gateway, run, "cancel")
    first = on(gateway, run, "replay")

    other = on(gateway, run, "replay", {"args": {"bell": "another"}})

    gateway.post("/api/v1/tasks/bells.crack/resume", {})
    assert first.status_code == 202
    assert other.status_code == 409
    assert first.json()["run_id"] in other.json()["detail"]


def test_a_failed_run_is_settled_and_leaves_the_dead_letters(gateway):
    run = failed(gateway)
    assert run in dead_runs(gateway)

    answers = [on(gateway, run, "settle", {"reason": "known"}) for _ in range(2)]

    assert [answer.json() for answer in answers] == [{"run_id": run, "state": "failed", "settled": True}] * 2
    assert run not in dead_runs(gateway)
    assert audited(gateway, run) == [("run.settled", "local", FROM, "known")]


def dead_runs(gateway):
    groups = gateway.http.get("/api/v1/dead-letters?domain=bells").json()["runs"]
    found = set()
    for group in groups:
        members = gateway.http.get(f"/api/v1/dead-letters/{group['fingerprint']}?limit=100").json()
        found |= {run["id"] for run in members["runs"]}
    return found


def completed(gateway):
    run = submit(gateway)
    gateway.ended(run)
    return run


@pytest.mark.parametrize(
    ("word", "state", "told"),
    [
        ("cancel", completed, "ended completed"),
        ("pause", completed, "ended completed"),
        ("resume", completed, "ended completed"),
        ("replay", completed, "ended completed"),
        ("replay", waiting, "has not ended"),
        ("settle", completed, "is completed"),
        ("settle", waiting, "is queued"),
    ],
)
def test_what_the_state_of_a_run_forbids_is_told(gateway, word, state, told):
    run = state(gateway)

    answer = on(gateway, run, word)

    assert answer.status_code == 409, answer.text
    assert answer.json()["type"] == "/docs#problem-conflict"
    assert told in answer.json()["detail"]
    assert audited(gateway, run) == []


@pytest.mark.parametrize("word", ["cancel", "pause", "resume", "replay", "settle"])
def test_what_is_no_run_cannot_be_steered(gateway, word):
    for id_ in (NOBODY, "null", "%00", "x" * 5000):
        assert on(gateway, id_, word).status_code == 404


@pytest.mark.parametrize("name", ["domains/bells", "tasks/bells.ring"])
def test_nothing_of_what_is_held_starts_until_it_is_let_go(gateway, name):
    path, word = f"/api/v1/{name}", name.split("/")[1]
    paused = [gateway.post(f"{path}/pause", {"reason": "maintenance"}).json() for _ in range(2)]
    run = submit(gateway)
    held = gateway.http.get("/api/v1/holds").json()["holds"]
    state = gateway.http.get(f"/api/v1/tasks/{run}/status").json()["status"]

    resumed = [gateway.post(f"{path}/resume", {}).json() for _ in range(2)]

    assert [(hold["name"], hold["actor"], hold["reason"]) for hold in held] == [(word, "local", "maintenance")]
    assert paused == [{"name": word, "paused": True, "changed": changed} for changed in (True, False)]
    assert resumed == [{"name": word, "paused": False, "changed": changed} for changed in (True, False)]
    assert state == "queued"
    assert gateway.ended(run)["status"] == "completed"
    assert gateway.http.get("/api/v1/holds").json() == {"holds": []}


@pytest.mark.parametrize(
    "path", ["domains/nowhere", "domains/bells.ring", "domains/%00", "tasks/bells", "tasks/bells.none", "tasks/a.%00"]
)
def test_what_is_no_queue_cannot_be_held(gateway, path):
    for word in ("pause", "resume"):
        assert gateway.post(f"/api/v1/{path}/{word}", {}).status_code == 404


def test_failed_runs_are_a_group_with_what_is_needed_to_judge_them(gateway):
    runs = [failed(gateway, labels={"batch": "judged"}) for _ in range(2)]

    group = group_of(gateway, "bells.crack")
    members = gateway.http.get(f"/api/v1/dead-letters/{group['fingerprint']}?task=bells.crack").json()

    assert group["type"] == "PermanentError"
    assert group["error"] == "the bell old cracked"
    assert group["count"] >= 2
    assert group["sample"][0] == runs[1]
    assert [run["id"] for run in members["runs"][:2]] == runs[::-1]
    assert members["runs"][0]["args"] == {"bell": "old"}
    assert "cracked" in members["runs"][0]["error"]["traceback"]
    assert members["messages"] == []


def group_of(gateway, task):
    groups = gateway.http.get("/api/v1/dead-letters").json()["runs"]
    return next(group for group in groups if group["task"] == task)


def test_a_group_is_run_again_after_one_that_goes_ahead(gateway):
    discarded(gateway)
    runs = [failed(gateway) for _ in range(3)]
    path = f"/api/v1/dead-letters/{group_of(gateway, 'bells.crack')['fingerprint']}"

    answer = gateway.post(f"{path}/replay", {"rate": 100, "reason": "mended"})

    act = answer.json()
    assert answer.status_code == 202, answer.text
    assert (act["action"], act["count"], act["done"], act["remaining"]) == ("replay", 3, 3, 0)
    replays = gateway.fetch("select id, replay_of::text from carillon.runs where replay_of = any($1::uuid[])", runs)
    assert {row["replay_of"] for row in replays} == set(runs)
    ends = {str(row["id"]): gateway.ended(str(row["id"]))["status"] for row in replays}
    assert ends.pop(act["canary"]) == "failed"
    assert list(ends.values()) == ["cancelled", "cancelled"]
    assert audited(gateway, act["selection"]) == [("runs.replayed", "local", FROM, "mended")]


def test_a_group_without_one_that_goes_ahead_is_run_again_at_once(gateway):
    discarded(gateway)
    run = failed(gateway)
    path = f"/api/v1/dead-letters/{group_of(gateway, 'bells.crack')['fingerprint']}"

    act = gateway.post(f"{path}/replay", {"canary": False, "task": "bells.crack", "rate": 1000}).json()

    assert (act["canary"], act["done"]) == (None, 1)
    ((again,),) = gateway.fetch("select id::text from carillon.runs where replay_of = $1::uuid", run)
    assert gateway.ended(again)["status"] == "failed"
    assert gateway.post(f"{path}/replay", {"task": "bells.ring"}).status_code == 404


def discarded(gateway):
    for group in gateway.http.get("/api/v1/dead-letters").json()["runs"]:
        gateway.post(f"/api/v1/dead-letters/{group['fingerprint']}/discard", {})


def test_a_group_is_discarded_and_its_runs_stay_in_the_history(gateway):
    discarded(gateway)
    run = failed(gateway)
    path = f"/api/v1/dead-letters/{group_of(gateway, 'bells.crack')['fingerprint']}"

    first, again = (gateway.post(f"{path}/discard", {"reason": "known"}) for _ in range(2))

    assert (first.status_code, first.json()) == (200, {"count": 1, "remaining": 0})
    assert again.status_code == 404
    assert gateway.http.get(path).status_code == 404
    assert gateway.ended(run)["status"] == "failed"


def test_a_group_beyond_what_an_act_takes_is_refused_with_what_to_do(gateway, start):
    discarded(gateway)
    for _ in range(3):
        failed(gateway)
    narrow = start(
        "from carillon.ledger import selections; selections.MOST_RUNS = 2; ",
        GATEWAY_KEY_FILE="",
    )
    narrow.key = gateway.key
    path = f"/api/v1/dead-letters/{group_of(gateway, 'bells.crack')['fingerprint']}"

    answers = [narrow.post(f"{path}/{word}", {}) for word in ("replay", "discard")]

    assert [answer.status_code for answer in answers] == [422, 422]
    for answer in answers:
        assert "more than 2 runs fit" in answer.json()["detail"]
        assert "POST /api/v1/selections" in answer.json()["detail"]
    assert group_of(gateway, "bells.crack")["count"] == 3


def test_the_members_of_a_group_are_read_page_by_page(gateway):
    discarded(gateway)
    runs = [failed(gateway) for _ in range(3)]
    letters = [bury(gateway, b"{", "beef") for _ in range(3)]
    of_runs = f"/api/v1/dead-letters/{group_of(gateway, 'bells.crack')['fingerprint']}"

    pages = paged(gateway, f"{of_runs}?limit=2"), paged(gateway, "/api/v1/dead-letters/beef?limit=2")
    cursor = gateway.http.get("/api/v1/dead-letters/beef?limit=2").json()["next_cursor"]
    elsewhere = gateway.http.get(f"{of_runs}?cursor={cursor}")

    gateway.post("/api/v1/dead-letters/beef/discard", {})
    assert [[run["id"] for run in page["runs"]] for page in pages[0]] == [[runs[2], runs[1]], [runs[0]]]
    assert [[letter["id"] for letter in page["messages"]] for page in pages[1]] == [
        [letters[2], letters[1]], [letters[0]],
    ]  # fmt: skip
    assert elsewhere.status_code == 422


def paged(gateway, path):
    pages = [gateway.http.get(path).json()]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(gateway.http.get(f"{path}&cursor={cursor}").json())
    return pages


def bury(gateway, body, fingerprint="ab12", size=None):
    letter = str(uuid4())
    gateway.fetch(
        """insert into carillon.dead_letters (id, domain, queue, reason, fingerprint, body, size, headers)
           values ($1, 'bells', 'carillon.bells', 'not JSON', $2, $3, $4, '{"content-type": "text/plain"}')""",
        letter, fingerprint, body, size,
    )  # fmt: skip
    return letter


def test_a_message_that_was_cut_says_so_and_is_not_redelivered_as_it_is(gateway):
    # The cut went through a character.
    letter = bury(gateway, "hällo".encode()[:2], "ce11", 3_000_000)

    shown = gateway.http.get(f"/api/v1/dead-letters/messages/{letter}").json()
    answer = gateway.post(f"/api/v1/dead-letters/messages/{letter}/redeliver", {})

    assert (shown["size"], shown["cut"], shown["text"]) == (3_000_000, True, "h")
    assert answer.status_code == 409
    assert "of 3,000,000 bytes are kept; give a whole body" in answer.json()["detail"]
    assert gateway.post("/api/v1/dead-letters/ce11/discard", {}).json()["count"] == 1


def test_a_group_of_messages_is_not_run_again_and_says_what_is_done_instead(gateway):
    bury(gateway, b"{", "fade")

    answers = [gateway.post(f"/api/v1/dead-letters/fade/{word}", {}) for word in ("replay", "redeliver")]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert "carillon dead-letters redeliver fade" in answers[0].json()["detail"]
    assert "set RABBIT_URL" in answers[1].json()["detail"]
    assert gateway.post("/api/v1/dead-letters/fade/discard", {}).json()["count"] == 1
    assert gateway.post("/api/v1/dead-letters/fade/redeliver", {}).status_code == 404


def test_a_list_of_groups_says_whether_there_are_more(gateway):
    for name in ("aa01", "aa02", "aa03"):
        bury(gateway, b"{", name)

    some, all_ = (gateway.http.get(f"/api/v1/dead-letters?limit={limit}").json() for limit in (2, 400))

    assert (len(some["messages"]), some["more"], all_["more"]) == (2, True, False)
    assert {group["fingerprint"] for group in all_["messages"]} >= {"aa01", "aa02", "aa03"}
    for name in ("aa01", "aa02", "aa03"):
        gateway.post(f"/api/v1/dead-letters/{name}/discard", {})


def test_messages_that_nobody_could_read_are_shown_as_text_or_in_base64(gateway):
    text, bytes_, long = bury(gateway, "hällo".encode()), bury(gateway, b"\xff\x00"), bury(gateway, "ü".encode() * 3000)

    group = next(g for g in gateway.http.get("/api/v1/dead-letters").json()["messages"] if g["fingerprint"] == "ab12")
    found = {message["id"]: message for message in gateway.http.get("/api/v1/dead-letters/ab12").json()["messages"]}
    whole = gateway.http.get(f"/api/v1/dead-letters/messages/{long}").json()
    gone = gateway.post("/api/v1/dead-letters/ab12/discard", {"reason": "garbage"})

    assert (group["count"], group["queue"], group["error"]) == (3, "carillon.bells", "not JSON")
    assert (found[text]["text"], found[text]["base64"], found[text]["size"]) == ("hällo", None, 6)
    assert found[text]["cut"] is False
    assert base64.b64decode(found[bytes_]["base64"]) == b"\xff\x00"
    assert (len(found[long]["text"]), found[long]["size"], len(whole["text"])) == (2048, 6000, 3000)
    assert found[text]["headers"] == {"content-type": "text/plain"}
    assert gone.json() == {"count": 3, "remaining": 0}
    assert gateway.http.get(f"/api/v1/dead-letters/messages/{text}").status_code == 404
    assert audited(gateway, "ab12") == [("message.discarded", "local", FROM, "garbage")]


def test_without_rabbitmq_a_message_cannot_be_redelivered_and_is_kept(gateway):
    letter = bury(gateway, b"{", "cd34")

    answer = gateway.post(f"/api/v1/dead-letters/messages/{letter}/redeliver", {"body": "{}"})

    assert answer.status_code == 409
    assert "set RABBIT_URL" in answer.json()["detail"]
    assert gateway.http.get(f"/api/v1/dead-letters/messages/{letter}").status_code == 200
    for id_ in (NOBODY, "x", "%00"):
        assert gateway.post(f"/api/v1/dead-letters/messages/{id_}/redeliver", {}).status_code == 404


def select(gateway, action, **filters):
    return gateway.post("/api/v1/selections", {"action": action, "filters": filters})


def test_a_preview_shows_what_the_act_then_does_and_nothing_more(gateway):
    label = {"storm": "one"}
    shown = [waiting(gateway, labels=label) for _ in range(3)]
    preview = select(gateway, "cancel", task="bells.ring", label=["storm:one"])
    later = waiting(gateway, labels=label)

    acts = [gateway.post(f"/api/v1/selections/{preview.json()['token']}/act", {"reason": "a storm"}) for _ in range(2)]

    assert preview.status_code == 201, preview.text
    assert (preview.json()["action"], preview.json()["count"]) == ("cancel", 3)
    assert {run["id"] for run in preview.json()["sample"]} == set(shown)
    assert preview.json()["expires_at"] > preview.json()["sample"][0]["created_at"]
    assert [(answer.status_code, answer.json()["done"], answer.json()["remaining"]) for answer in acts] == [
        (200, 3, 0)
    ] * 2
    states = [gateway.http.get(f"/api/v1/tasks/{run}/status").json()["status"] for run in (*shown, later)]
    assert states == ["cancelled"] * 3 + ["queued"]
    token = preview.json()["token"]
    assert audited(gateway, token) == [("runs.cancelled", "local", FROM, "a storm")]
    (entry,) = gateway.fetch("select details::text from carillon.audit where subject = $1", token)
    assert json.loads(entry["details"])["filters"] == {"task": "bells.ring", "label": ["storm:one"]}


def test_every_filter_of_the_search_chooses_for_an_act_too(gateway):
    runs = [waiting(gateway, labels={"filters": "all", "n": str(n)}) for n in range(2)]
    whole = {
        "state": ["queued", "paused"], "domain": "bells", "task": "bells.ring", "label": ["filters:all", "n:1"],
        "since": "2020-01-01T00:00:00Z", "until": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    other = {
        "state": ["paused"], "domain": "backup", "task": "bells.crack", "label": ["n:3"],
        "since": "2099-01-01T00:00:00Z", "until": "2020-01-01T00:00:00Z",
    }  # fmt: skip

    one = select(gateway, "cancel", **whole).json()
    none = {
        name: select(gateway, "cancel", **{"label": ["filters:all"], name: value}).json()
        for name, value in other.items()
    }

    assert [run["id"] for run in one["sample"]] == [runs[1]]
    assert {name: answer["count"] for name, answer in none.items()} == dict.fromkeys(other, 0)


def test_what_ended_is_deleted_by_an_act(gateway):
    run = failed(gateway, labels={"deleted": "soon"})

    token = select(gateway, "delete", label=["deleted:soon"]).json()["token"]
    act = gateway.post(f"/api/v1/selections/{token}/act", b"", **{"Content-Type": ""})

    assert (act.status_code, act.json()["done"]) == (200, 1)
    assert gateway.http.get(f"/api/v1/runs/{run}").status_code == 404


def test_a_token_that_is_none_or_too_old_does_nothing(gateway):
    run = waiting(gateway, labels={"old": "token"})
    token = select(gateway, "cancel", label=["old:token"]).json()["token"]
    gateway.fetch("update carillon.selections set made_at = now() - interval '16 minutes' where id = $1", token)

    for text in (token, NOBODY, "x", "%00"):
        answer = gateway.post(f"/api/v1/selections/{text}/act", {})
        assert answer.status_code == 404, answer.text
    assert gateway.http.get(f"/api/v1/tasks/{run}/status").json()["status"] == "queued"
