"""Seeing schedules, pausing and resuming them."""

from __future__ import annotations

import pytest


@pytest.fixture
def hourly(gateway):
    gateway.fetch(
        """insert into carillon.schedules (name, cron, event_type, event_data, owner, next_fire_at)
        values ('hourly', '0 * * * *', 'bells.ring_requested.v1', '{"bell": "x"}', 'bells', '2030-01-01T00:00:00Z')
        on conflict (name) do update set paused_at = null, paused_by = null"""
    )


def test_a_schedule_shows_when_it_fires_next(gateway, hourly):
    schedule = gateway.http.get("/api/v1/tasks/scheduled").json()["schedules"][0]

    assert (schedule["name"], schedule["cron"], schedule["timezone"], schedule["paused"]) == (
        "hourly", "0 * * * *", "UTC", False,
    )  # fmt: skip
    assert schedule["next_run_time"] == "2030-01-01T00:00:00Z"


def test_a_paused_schedule_has_no_next_fire_and_says_who_paused_it(gateway, hourly):
    for _ in range(2):
        paused = gateway.post("/api/v1/tasks/scheduled/hourly/pause", b"")
        assert (paused.status_code, paused.json()["paused"], paused.json()["paused_by"]) == (200, True, "local")
        assert paused.json()["next_run_time"] is None

    for _ in range(2):
        resumed = gateway.post("/api/v1/tasks/scheduled/hourly/resume", b"")
        assert (resumed.status_code, resumed.json()["paused"]) == (200, False)


def test_fires_are_listed_newest_first(gateway, hourly):
    gateway.fetch(
        """insert into carillon.fires (schedule, fire_at, outcome, decided_at)
        values ('hourly', '2026-01-01T00:00:00Z', 'fired', now()), ('hourly', '2026-01-01T01:00:00Z', 'misfired', now())
        on conflict do nothing"""
    )

    fires = gateway.http.get("/api/v1/tasks/scheduled/hourly/fires").json()["fires"]

    assert [fire["outcome"] for fire in fires] == ["misfired", "fired"]


def test_a_schedule_that_does_not_exist_is_not_found(gateway):
    assert gateway.post("/api/v1/tasks/scheduled/never/pause", b"").status_code == 404
    assert gateway.post("/api/v1/tasks/scheduled/%00/resume", b"").status_code == 404
    assert gateway.http.get("/api/v1/tasks/scheduled/never/fires").status_code == 404
