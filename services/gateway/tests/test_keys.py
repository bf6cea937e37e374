"""Who may do what."""

from __future__ import annotations

import stat

import pytest

from gateway.keys import SHAPE, Key, digest_of, new_secret, owner_of, secret_in

POSTS = (
    "/api/v1/tasks",
    "/api/v1/tasks/batch",
    "/api/v1/tasks/bells/kick",
    "/api/v1/events",
    "/api/v1/tasks/scheduled/hourly/pause",
    "/api/v1/tasks/scheduled/hourly/resume",
)


def credentials(key):
    return {
        "no key": {},
        "an empty header": {"Authorization": ""},
        "a scheme alone": {"Authorization": "Bearer"},
        "another scheme": {"Authorization": f"Basic {key}"},
        "a wrong key": {"Authorization": f"Bearer {new_secret()}"},
        "half a key": {"Authorization": f"Bearer {key[:-1]}"},
        "a longer key": {"Authorization": f"Bearer {key}x"},
        "its digest": {"Authorization": f"Bearer {digest_of(key).hex()}"},
        "a wrong key in the other header": {"X-API-Key": "carillon_wrong"},
        "two headers": {"Authorization": f"Bearer {key}", "X-API-Key": "carillon_wrong"},
    }


@pytest.mark.parametrize("path", POSTS)
def test_without_a_valid_key_nothing_changes_and_every_refusal_is_the_same(gateway, path):
    before = gateway.recorded()

    answers = [
        gateway.http.post(path, json={"data": {"times": 1}}, headers=headers)
        for headers in credentials(gateway.key).values()
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)
    assert gateway.recorded() == before


def test_both_headers_carry_a_key(gateway):
    for headers in ({"X-API-Key": gateway.key}, {"Authorization": f"bearer {gateway.key}"}):
        answer = gateway.http.post("/api/v1/tasks/bells/kick", json={"data": {"times": 1}}, headers=headers)

        assert answer.status_code == 202


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "anything"])
def test_a_key_in_an_address_is_refused_even_beside_a_header(gateway, name):
    path = f"/api/v1/tasks/bells/kick?{name}={gateway.key}"

    posted = gateway.post(path, {"data": {"times": 1}})
    read = gateway.http.get(f"/api/v1/tasks?{name}={gateway.key}")

    assert (posted.status_code, read.status_code) == (401, 401)
    assert gateway.key not in posted.text


def test_reading_takes_a_key_where_reads_are_not_open(start):
    closed = start(GATEWAY_OPEN_READS="false")

    for path in ("/api/v1/tasks", "/api/v1/runs", "/api/v1/live", "/api/v1/overview", "/files/reports/a.pdf"):
        assert closed.http.get(path).status_code == 401
    assert closed.http.get("/api/v1/tasks", headers=closed.auth).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/health/live", "/metrics", "/static/carillon.css"):
        assert closed.http.get(path).status_code == 200


def test_a_revoked_key_stops_working(start, gateway):
    other = start()
    assert other.http.post("/api/v1/tasks/bells/kick", json={}, headers=other.auth).status_code == 422

    other.fetch("update gateway.keys set revoked_at = now()")

    fresh = start(GATEWAY_KEY_FILE="")
    refused = fresh.http.post("/api/v1/tasks/bells/kick", json={}, headers=other.auth)
    assert refused.status_code == 401


def test_only_a_digest_is_kept(gateway):
    rows = gateway.fetch("select * from gateway.keys")

    assert gateway.key not in str([dict(row) for row in rows])


def test_a_key_file_is_made_once_for_its_owner_only(tmp_path):
    file = tmp_path / "home" / "key"

    secret = secret_in(file)

    assert SHAPE.match(secret)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret_in(file) == secret


def test_a_key_file_that_others_can_read_or_without_a_key_is_refused(tmp_path):
    readable, empty = tmp_path / "readable", tmp_path / "empty"
    readable.write_text(new_secret())
    readable.chmod(0o644)
    empty.touch(0o600)

    for file, words in ((readable, "chmod 600"), (empty, "does not hold a key")):
        with pytest.raises(Exception, match=words):
            secret_in(file)


def test_a_key_is_found_by_its_digest():
    mine, other = new_secret(), new_secret()
    keys = [Key("mine", digest_of(mine)), Key("other", digest_of(other))]

    assert (owner_of(mine, keys), owner_of(other, keys), owner_of(new_secret(), keys)) == ("mine", "other", None)
