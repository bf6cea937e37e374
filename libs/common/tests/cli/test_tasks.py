"""`carillon tasks`: what there is, and what limits it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from subprocess import CompletedProcess

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from carillon import Limits, Rate, Retry, Tasks
from carillon.ledger.catalogue import Catalogue
from carillon.migrations import migrate
from carillon.settings import sqlalchemy_url

Asked = Callable[..., CompletedProcess[str]]
tasks = Tasks("post")


@tasks.task(
    timeout=timedelta(minutes=2),
    retry=Retry(attempts=4),
    labels={"priority": "high"},
    limits=Limits(concurrency=20, key="to", per_key=2, rate=Rate(100, per=timedelta(minutes=1), burst=10)),
)
async def send(to: str) -> None:
    """Send. Safe to run twice: it does nothing."""


@tasks.task()
async def sort() -> None:
    """Sort. Safe to run twice: it does nothing."""


async def prepare(url: str) -> None:
    await migrate(url, "carillon.ledger.migrations")
    engine = create_async_engine(sqlalchemy_url(url))
    catalogue = Catalogue(engine)
    entries = [task.entry("carillon.post.tasks") for task in tasks.declared.values()]
    await catalogue.register("post", entries, [], {}, limit=50)
    await engine.dispose()


@pytest.fixture(scope="module")
def url(new_database) -> str:
    made = new_database()
    asyncio.run(prepare(made))
    return made


@pytest.fixture
def asked(place, url: str) -> Asked:
    return lambda *words: place.command("tasks", *words, DATABASE_URL=url)


def test_each_task_is_told_with_its_limits_and_those_of_its_domain(asked) -> None:
    shown = asked()

    heading, send, sort = (line.split() for line in shown.stdout.splitlines())
    assert shown.returncode == 0, shown.stderr
    assert heading == ["task", "hears", "timeout_s", "attempts", "priority", "limits"]
    assert send[:4] == ["post.send", "120", "4", "high"]
    assert " ".join(send[4:]) == (
        "at most 20 at once; at most 2 at once for each to; 100 starts in 60 s, 10 of them together; "
        "all of post at most 50 at once"
    )
    assert sort[0] == "post.sort"
    assert " ".join(sort[-9:]) == "normal all of post at most 50 at once"


def test_as_json_a_task_has_its_schema_and_policy_too(asked) -> None:
    send, _ = (json.loads(line) for line in asked("--domain", "post", "--json").stdout.splitlines())

    assert send["policy"]["limits"]["per_key"] == 2
    assert (send["domain_limit"], send["schema"]["required"]) == (50, ["to"])


def test_a_domain_that_nobody_registered_has_none(asked) -> None:
    nothing = asked("--domain", "nowhere")

    assert (nothing.returncode, nothing.stdout) == (0, "No task.\n")
