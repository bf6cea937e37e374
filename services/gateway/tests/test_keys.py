"""Who may do what."""

from __future__ import annotations

import asyncio
import stat

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.ledger.audit import Actor
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url
from carillon.testing.eventually import eventually
from gateway.keys import SHAPE, Key, digest_of, new_secret, owner_of, secret_in
from gateway.store import Keys

WAITING = text("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")

POSTS = (
    "/api/v1/tasks",
    "/api/v1/tasks/batch",
    "/api/v1/tasks/bells/kick",
    "/api/v1/events",
    "/api/v1/keys",
    "/api/v1/keys/local/revoke",
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


def test_reading_takes_a_key_where_reads_are_not_open(start, gateway):
    closed = start(GATEWAY_OPEN_READS="false", GATEWAY_KEY_FILE="")

    for path in ("/api/v1/tasks", "/api/v1/runs", "/api/v1/live", "/api/v1/overview", "/files/reports/a.pdf"):
        assert closed.http.get(path).status_code == 401
    assert closed.http.get("/api/v1/tasks", headers=gateway.auth).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/health/live", "/metrics", "/static/carillon.css"):
        assert closed.http.get(path).status_code == 200


def created(gateway, name, **more):
    answer = gateway.post("/api/v1/keys", {"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["key"]


def known(gateway):
    keys = gateway.http.get("/api/v1/keys", headers=gateway.auth).json()["keys"]
    return {key["name"]: key["revoked_at"] is None for key in keys}


def only_local(gateway):
    for name in known(gateway).keys() - {"local"}:
        assert gateway.post(f"/api/v1/keys/{name}/revoke", {}).status_code == 200


def kick(gateway, key):
    auth = {"Authorization": f"Bearer {key}"}
    return gateway.http.post("/api/v1/tasks/bells/kick", json={"data": {"times": 1}}, headers=auth).status_code


async def answers(gateway, key, status):
    return await asyncio.to_thread(kick, gateway, key) == status


async def test_a_new_key_opens_every_gateway_until_it_is_revoked_and_the_trail_tells_both(start, gateway):
    other = start(GATEWAY_KEY_FILE="")
    assert kick(other, gateway.key) == 202

    answer = gateway.post("/api/v1/keys", {"name": "ada", "reason": "joins"})
    ada = answer.json()["key"]
    worked = kick(gateway, ada), await eventually(lambda: answers(other, ada, 202), within=1.5), known(gateway)
    mine = {"Authorization": f"Bearer {ada}"}
    revoked = [gateway.http.post("/api/v1/keys/ada/revoke", json={"reason": "left"}, headers=mine).status_code]
    revoked.append(gateway.post("/api/v1/keys/ada/revoke", {}).json())

    assert (answer.headers["cache-control"], SHAPE.match(ada) is not None) == ("no-store", True)
    assert worked == (202, True, {"ada": True, "local": True})
    assert revoked == [200, {"name": "ada", "changed": False}]
    assert (kick(gateway, ada), known(gateway)["ada"]) == (401, False)
    assert await eventually(lambda: answers(other, ada, 401), within=6)
    told = gateway.fetch("select * from carillon.audit where subject = 'ada' order by seq")
    assert [(row["action"], row["actor"], row["reason"]) for row in told] == [
        ("key.created", "local", "joins"), ("key.revoked", "ada", "left"),
    ]  # fmt: skip
    assert ada not in str([dict(row) for row in told])


def test_a_key_file_may_hold_a_key_that_was_made_by_hand(start, gateway, tmp_path):
    file = tmp_path / "key"
    file.write_text(created(gateway, "hand"))
    file.chmod(0o600)

    other = start(GATEWAY_KEY_FILE=str(file))

    assert kick(other, file.read_text()) == 202
    # It is that key, not another one of the file's own.
    assert gateway.fetch("select name from gateway.keys where name = 'local' and revoked_at is null")
    assert kick(gateway, gateway.key) == 202


def test_a_revoked_name_can_be_given_again_with_another_secret(gateway):
    first = created(gateway, "bob")
    gateway.post("/api/v1/keys/bob/revoke", {})

    second = created(gateway, "bob")

    assert (kick(gateway, first), kick(gateway, second), known(gateway)["bob"]) == (401, 202, True)


def test_what_cannot_be_done_with_a_key_is_said(gateway):
    only_local(gateway)
    before = gateway.recorded()

    answers = [
        gateway.post("/api/v1/keys", {"name": "local"}),
        gateway.post("/api/v1/keys/local/revoke", {}),
        gateway.post("/api/v1/keys/nobody/revoke", {}),
        gateway.post("/api/v1/keys/%00/revoke", {}),
        *(gateway.post("/api/v1/keys", body) for body in ({}, {"name": "Ada"}, {"name": "a b"}, {"name": "x" * 64})),
        gateway.http.get("/api/v1/keys"),
    ]

    assert [answer.status_code for answer in answers] == [409, 409, 404, 404, 422, 422, 422, 422, 401]
    assert "the last key" in answers[1].json()["detail"]
    assert (gateway.recorded(), known(gateway)["local"]) == (before, True)
    created(gateway, "eve")
    assert "take another name" in gateway.post("/api/v1/keys", {"name": "eve"}).json()["detail"]


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


async def both_wait(engine):
    # Looked at anew: within one transaction this view does not change.
    async with engine.connect() as connection:
        return await connection.scalar(WAITING) == 2


async def test_of_two_who_revoke_each_other_one_stays(new_database):
    url = new_database()
    await migrate(url, "carillon.ledger.migrations", "gateway.migrations")
    engine, actor = create_async_engine(sqlalchemy_url(url), connect_args={"timeout": 5}), Actor("ada", "a test")
    store = Keys(engine)
    await store.ensure("local", new_secret(), actor)
    await store.create("one", new_secret(), actor, None)

    async with engine.begin() as held:
        # So that both have begun before either can change anything.
        await held.execute(text("lock table gateway.keys in share row exclusive mode"))
        both = [asyncio.create_task(store.revoke(name, actor, None)) for name in ("one", "local")]
        await eventually(lambda: both_wait(engine), within=10)
    ended = await asyncio.gather(*both, return_exceptions=True)

    stand = [key["name"] for key in await store.all() if key["revoked_at"] is None]
    await engine.dispose()
    assert sorted(type(end).__name__ for end in ended) == ["InvalidArgumentsError", "bool"]
    assert len(stand) == 1


def test_a_key_file_whose_key_was_revoked_opens_nothing_and_the_log_says_so(start):
    begun = start()
    begun.fetch("update gateway.keys set revoked_at = now()")

    again = start(GATEWAY_KEY_FILE=str(begun.storage.parent / "key"))

    assert kick(again, begun.key) == 401
    log = (again.storage.parent / "log").read_text()
    assert "the key in the key file was revoked" in log
    assert begun.key not in log
