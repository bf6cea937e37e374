"""The audit trail over HTTP: who did what with which key, page by page, and whether it still holds."""

from __future__ import annotations

import hashlib
import json

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.ledger.audit import Actor, Audit, AuditSearch
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url
from gateway.keys import new_secret
from gateway.store import Keys

PAUSE, RESUME = (f"/api/v1/tasks/scheduled/hourly/{word}" for word in ("pause", "resume"))


@pytest.fixture(autouse=True)
def hourly(gateway):
    gateway.fetch(
        """insert into carillon.schedules (name, cron, event_type, event_data, owner, next_fire_at)
        values ('hourly', '0 * * * *', 'bells.ring_requested.v1', '{"bell": "x"}', 'bells', '2030-01-01T00:00:00Z')
        on conflict (name) do update set paused_at = null, paused_by = null"""
    )


def trail(gateway, query=""):
    answer = gateway.http.get(f"/api/v1/audit{query}", headers=gateway.auth)
    assert answer.status_code == 200, answer.text
    return answer.json()["entries"]


def size(gateway):
    return trail(gateway, "?limit=1")[0]["seq"]


def test_what_was_done_with_a_key_is_told_with_reason_and_address(gateway):
    gateway.post(PAUSE, {"reason": "the disk is full: 100 %"})
    gateway.post(RESUME, b"", **{"Content-Type": ""})

    resumed, paused = trail(gateway, "?limit=2")
    shown = ("actor", "origin", "action", "subject", "reason")
    assert [paused[name] for name in shown] == [
        "local", "gateway, asked from 127.0.0.1", "schedule.paused", "hourly", "the disk is full: 100 %",
    ]  # fmt: skip
    assert [resumed[name] for name in shown] == [
        "local", "gateway, asked from 127.0.0.1", "schedule.resumed", "hourly", None,
    ]  # fmt: skip
    assert resumed["previous"] == paused["hash"]


def test_what_changed_nothing_is_not_told(gateway):
    gateway.post(PAUSE, {"reason": ""})
    before = size(gateway)

    again = gateway.post(PAUSE, {"reason": "once more"})
    gateway.http.post(RESUME)
    gateway.post("/api/v1/tasks/scheduled/never/pause", {})

    assert (again.status_code, again.json()["paused_by"]) == (200, "local")
    assert size(gateway) == before
    gateway.post(RESUME, {})
    gateway.post(RESUME, {})
    assert size(gateway) == before + 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 422),
        (b"null", 422),
        (b'"why"', 422),
        (b'{"reason": 7}', 422),
        (b'{"reason": null}', 422),
        (b'{"reason": "x", "actor": "somebody"}', 422),
        (rb'{"reason": "\u0000"}', 422),
        (rb'{"reason": "\ud800"}', 400),
        (b'{"reason": "x", "reason": "y"}', 400),
        (b'{"reason": "' + b"x" * 501 + b'"}', 422),
        (b"because", 400),
        (b"x" * 300_000, 413),
    ],
)
def test_a_reason_that_cannot_be_kept_is_refused_and_nothing_is_done(gateway, body, status):
    before = size(gateway)

    for path in (PAUSE, RESUME):
        answer = gateway.post(path, body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"

    assert gateway.post(PAUSE, b'{"reason": "x"}', **{"Content-Type": "text/plain"}).status_code == 415
    assert size(gateway) == before
    assert gateway.fetch("select paused_at from carillon.schedules where name = 'hourly'")[0]["paused_at"] is None


def test_the_longest_reason_is_kept_whole(gateway):
    reason = "ü" * 500

    gateway.post(PAUSE, {"reason": reason})

    assert trail(gateway, "?limit=1")[0]["reason"] == reason


def test_an_address_that_a_proxy_names_is_cut_and_cleaned(gateway):
    gateway.post(PAUSE, {}, **{"X-Forwarded-For": "203.0.113.7"})
    gateway.post(RESUME, {}, **{"X-Forwarded-For": "<\x1b[31m" + "x" * 5000})

    forged, named = trail(gateway, "?limit=2")
    assert named["origin"] == "gateway, asked from 203.0.113.7"
    assert len(forged["origin"]) <= 100
    assert forged["origin"].isprintable()


def test_pages_follow_each_other_and_filters_hold_together(gateway):
    for number in range(3):
        gateway.post(PAUSE, {"reason": f"reason {number}"})
        gateway.post(RESUME, {})
    query = "?action=schedule.paused&subject=hourly&actor=local&limit=2"

    first = gateway.http.get(f"/api/v1/audit{query}").json()
    second = gateway.http.get(f"/api/v1/audit{query}&cursor={first['next_cursor']}").json()

    reasons = [entry["reason"] for entry in (*first["entries"], *second["entries"])]
    assert reasons[:3] == ["reason 2", "reason 1", "reason 0"]
    assert trail(gateway, "?since=2030-01-01T00:00:00Z") == []
    assert trail(gateway, "?actor=nobody") == []
    newest = trail(gateway, "?limit=1")[0]
    assert [entry["seq"] for entry in trail(gateway, f"?since={newest['at']}")] == [newest["seq"]]
    assert trail(gateway, f"?until={newest['at']}&limit=1")[0]["seq"] == newest["seq"] - 1


def test_an_entry_that_was_noted_is_looked_for_in_the_chain(gateway):
    gateway.post(PAUSE, {})
    newest = trail(gateway, "?limit=1")[0]

    kept, lost = (
        gateway.http.get(f"/api/v1/audit/verify?noted={newest['seq']}:{digest}").json()
        for digest in (newest["hash"], "0" * 64)
    )

    assert (kept["holds"], lost["holds"]) == (True, False)
    assert lost["broken"]["seq"] == newest["seq"]
    assert gateway.http.get("/api/v1/audit/verify?noted=7").status_code == 422


def test_the_whole_trail_can_be_walked_by_its_cursors_and_checked_with_json_and_sha256(gateway):
    gateway.post(PAUSE, {"reason": 'a "quoted" \\ line\nwith a tab\t, \x7f and ü 🔔'})
    entries, cursor = [], ""
    while cursor is not None:
        page = gateway.http.get(f"/api/v1/audit?limit=3{f'&cursor={cursor}' if cursor else ''}").json()
        entries, cursor = [*entries, *page["entries"]], page["next_cursor"]

    before = "0" * 64
    for entry in reversed(entries):
        fields = {name: value for name, value in entry.items() if name != "hash"}
        line = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(line.encode()).hexdigest() == entry["hash"]
        assert entry["previous"] == before
        before = entry["hash"]
    assert [entry["seq"] for entry in entries] == list(range(len(entries), 0, -1))


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=-1", "limit=ten", "limit=1&limit=2", "actor=%00", "subject=a%00b", "actor=",
        "action=schedule.exploded", "action=%00", "since=yesterday", "since=2026-02-30T00:00:00Z", "until=x",
        "since=0001-01-01T00:00:00%2B14:00", "until=9999-12-31T23:59:59-14:00", "cursor=",
        "cursor=x", "cursor=%00", "cursor=AAAAAAAAAAEAAAAAAAAAAAAAAAAAAAA", f"cursor={'x' * 101}", "actor=" + "x" * 201,
    ],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused(gateway, query):
    answer = gateway.http.get(f"/api/v1/audit?{query}")

    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0].keys() == {"pointer", "detail"}


def test_a_cursor_belongs_to_its_search(gateway):
    cursor = gateway.http.get("/api/v1/audit?limit=1").json()["next_cursor"]
    runs = gateway.post("/api/v1/tasks/bells/kick", {"data": {"times": 1}, "delay": 60})
    gateway.post("/api/v1/tasks/bells/kick", {"data": {"times": 1}, "delay": 60})

    of_runs = gateway.http.get("/api/v1/runs?limit=1").json()["next_cursor"]

    assert runs.status_code == 202
    assert gateway.http.get(f"/api/v1/audit?actor=local&cursor={cursor}").status_code == 422
    assert gateway.http.get(f"/api/v1/audit?cursor={of_runs}").status_code == 422
    assert gateway.http.get(f"/api/v1/runs?cursor={cursor}").status_code == 422


def test_the_key_and_the_tasks_that_came_with_the_start_are_told(gateway):
    (created,) = trail(gateway, "?action=key.created")
    added = trail(gateway, "?action=task.added&actor=bells")

    assert (created["actor"], created["subject"]) == ("gateway", "local")
    assert created["origin"].startswith("gateway (process ")
    assert [entry["subject"] for entry in reversed(added)] == [
        "bells.crack", "bells.ring", "bells.ring_on_request", "bells.toll", "bells.write_down",
    ]  # fmt: skip
    assert added[0]["details"]["policy"]["timeout_seconds"] > 0
    assert gateway.key not in json.dumps(trail(gateway, "?limit=200"))


def test_the_trail_needs_a_key_where_reads_are_not_open(start):
    closed = start(GATEWAY_OPEN_READS="false", GATEWAY_KEY_FILE="")

    for path in ("/api/v1/audit", "/api/v1/audit/verify"):
        assert closed.http.get(path).status_code == 401


def test_a_changed_entry_is_named(gateway):
    gateway.post(PAUSE, {"reason": "as it was"})
    holds = gateway.http.get("/api/v1/audit/verify").json()
    last = trail(gateway, "?limit=1")[0]

    change = "alter table carillon.audit disable trigger keep; update carillon.audit set reason = '{}' where seq = {}"
    _run(gateway, change.format("another", last["seq"]))
    broken = gateway.http.get("/api/v1/audit/verify").json()
    _run(gateway, change.format("as it was", last["seq"]) + "; alter table carillon.audit enable always trigger keep")

    assert holds == {"holds": True, "entries": last["seq"], "hash": last["hash"], "broken": None}
    assert broken["broken"] == {"seq": last["seq"], "fault": "was changed: its hash is not that of its fields"}
    assert (broken["holds"], broken["entries"]) == (False, last["seq"] - 1)
    assert gateway.http.get("/api/v1/audit/verify").json() == holds


def _run(gateway, statements):
    for statement in statements.split("; "):
        gateway.fetch(statement)


async def test_a_key_that_is_new_or_another_or_revoked_is_told_and_the_same_one_is_not(new_database):
    url = new_database()
    await migrate(url, "carillon.ledger.migrations", "gateway.migrations")
    engine, actor = create_async_engine(sqlalchemy_url(url), connect_args={"timeout": 5}), Actor("gateway", "a test")
    store, first, second = Keys(engine), new_secret(), new_secret()

    for secret in (first, first, second, second):
        assert await store.ensure("local", secret, actor, "it is in the key file")
    await store.create("ada", new_secret(), actor, "joins")
    revoked = [await store.revoke("local", actor, "seen in a log") for _ in range(2)]
    opened = await store.ensure("local", second, actor)

    rows = list(reversed(await Audit(engine).page(AuditSearch())))
    await engine.dispose()
    assert [(row["action"], row["subject"]) for row in rows] == [
        ("key.created", "local"), ("key.replaced", "local"), ("key.created", "ada"), ("key.revoked", "local"),
    ]  # fmt: skip
    assert (revoked, opened) == ([True, False], False)
    assert rows[0]["reason"] == "it is in the key file"
    assert not any(secret in str(rows) for secret in (first, second))
