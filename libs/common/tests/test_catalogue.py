"""The catalogue of tasks and events: what registering changes, and who hears what while the server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from carillon.ledger import catalogue as module
from carillon.ledger.audit import Audit, AuditSearch
from carillon.ledger.catalogue import Catalogue, Hearer
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url


@pytest.fixture
async def url(new_database) -> str:
    made = new_database()
    await migrate(made, "carillon.ledger.migrations")
    return made


@pytest.fixture
async def catalogue(url: str, monkeypatch) -> AsyncIterator[Catalogue]:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    engine = create_async_engine(sqlalchemy_url(url), connect_args={"timeout": 5})
    yield Catalogue(engine)
    await engine.dispose()


def task(name: str, **columns: object) -> dict[str, object]:
    return {
        "name": name,
        "queue": "q",
        "doc": "",
        "schema": {},
        "policy": {},
        "hears": None,
        "says": [],
        "is_default": False,
    } | columns


ORDERS = {"type": "shop.order_placed.v1", "doc": "", "schema": {}}


async def test_a_domain_s_tasks_are_those_of_its_latest_registration(catalogue):
    await catalogue.register("shop", [task("shop.add"), task("shop.gone")], [ORDERS], {"asyncapi": "3.0.0"})
    await catalogue.register("mail", [task("mail.send")], [], {})
    await catalogue.register("shop", [task("shop.add", doc="new"), task("shop.main", is_default=True)], [ORDERS], {})

    assert [row["name"] for row in await catalogue.tasks()] == ["mail.send", "shop.add", "shop.main"]
    assert [row["name"] for row in await catalogue.tasks_of("shop")] == ["shop.main", "shop.add"]
    assert (await catalogue.task("shop.add"))["doc"] == "new"
    assert await catalogue.task("shop.gone") is None
    assert [row["type"] for row in await catalogue.event_types()] == ["shop.order_placed.v1"]
    assert [row["name"] for row in await catalogue.domains()] == ["mail", "shop"]


async def test_a_task_keeps_the_moment_of_its_first_registration(catalogue):
    await catalogue.register("shop", [task("shop.add")], [], {})
    first = (await catalogue.task("shop.add"))["registered_at"]
    await catalogue.register("shop", [task("shop.add")], [], {})

    assert (await catalogue.task("shop.add"))["registered_at"] == first


async def test_tasks_that_come_and_go_and_policies_that_change_are_audited_and_a_restart_is_not(catalogue):
    audit = Audit(catalogue._engine)
    slow, patient = {"timeout_seconds": 60.0, "attempts": 3}, {"timeout_seconds": 60.0, "attempts": 5}
    for _ in range(2):
        await catalogue.register("shop", [task("shop.add", policy=slow), task("shop.gone")], [ORDERS], {})
    await catalogue.register("mail", [task("mail.send")], [], {})
    first = await audit.page(AuditSearch())

    await catalogue.register("shop", [task("shop.add", policy=patient, doc="new"), task("shop.new")], [], {})

    told = [(row["actor"], row["action"], row["subject"]) for row in reversed(first)]
    assert told == [
        ("shop", "task.added", "shop.add"), ("shop", "task.added", "shop.gone"), ("mail", "task.added", "mail.send"),
    ]  # fmt: skip
    since = [row for row in reversed(await audit.page(AuditSearch())) if row["seq"] > first[0]["seq"]]
    assert [(row["action"], row["subject"], row["details"]) for row in since] == [
        ("task.policy_changed", "shop.add", {"before": slow, "after": patient}),
        ("task.removed", "shop.gone", {"policy": {}}),
        ("task.added", "shop.new", {"policy": {}}),
    ]
    assert since[0]["origin"].startswith("shop (process ")


async def test_two_processes_of_a_domain_that_register_at_once_are_one_change(catalogue):
    declared = [task(f"shop.task_{number}") for number in range(5)]

    await asyncio.gather(*(catalogue.register("shop", declared, [ORDERS], {}) for _ in range(4)))

    assert len(await Audit(catalogue._engine).page(AuditSearch())) == 5


async def test_who_hears_an_event_is_known_in_all_domains_or_in_one(catalogue):
    hears = ORDERS["type"]
    await catalogue.register("shop", [task("shop.pack", hears=hears), task("shop.add")], [ORDERS], {})
    await catalogue.register("mail", [task("mail.thank", hears=hears)], [ORDERS], {})

    assert await catalogue.hearers(hears) == [Hearer("mail.thank", "mail"), Hearer("shop.pack", "shop")]
    assert await catalogue.hearers(hears, "shop") == [Hearer("shop.pack", "shop")]
    assert await catalogue.hearers("nobody.hears_this.v1") == []


async def test_while_the_server_refuses_connections_the_last_answer_holds(catalogue, url, test_servers):
    hears = ORDERS["type"]
    await catalogue.register("shop", [task("shop.pack", hears=hears)], [ORDERS], {})
    name = url.rpartition("/")[2]
    admin = await asyncpg.connect(test_servers.postgres(), timeout=5)
    await admin.execute(f'alter database "{name}" allow_connections false')
    await admin.fetch("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)

    answers = [await catalogue.hearers(hears) for _ in range(3)]

    await admin.execute(f'alter database "{name}" allow_connections true')
    await admin.close()
    assert answers == [[Hearer("shop.pack", "shop")]] * 3
    assert await catalogue.hearers(hears) == answers[0]
