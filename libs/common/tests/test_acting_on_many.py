"""Many runs at once, and dead letters by the group, from Python: a preview, exactly what it showed, and the trail."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from shop import Shop, shop_service

from carillon import Service, Tasks
from carillon.dead_letters import Redelivered
from carillon.errors import InvalidArgumentsError, NotFoundError, PlatformUnavailableError, RunStateError
from carillon.ids import new_id
from carillon.ledger.audit import AuditSearch
from carillon.ledger.records import NewRun
from carillon.operator import Operator, get_operator
from carillon.platform import Platform
from carillon.testing import eventually, running

pytestmark = pytest.mark.real("selections and unreadable messages")

#: Not at all: one step, and no more.
AT_ONCE = timedelta(0)

printing = Tasks("printing")


@printing.task()
async def print_page(size: int) -> str:
    """Print a page. Safe to run twice: it only returns."""
    return "x" * size


@pytest.fixture
def ada(platform) -> Operator:
    return get_operator(platform, by="ada", reason="a storm")


async def submitted(platform: Platform, count: int = 1, *, waits: bool = True, **options: Any) -> list[UUID]:
    options = {"domain": "shop", "task": "shop.add", "args": '{"a": 1}'} | options
    at = datetime.now(UTC) + timedelta(hours=1) if waits else None
    made = await platform.submit_many([NewRun(id=new_id(), run_at=at, **options) for _ in range(count)])
    return [one.id for one in made]


async def ended(platform: Platform, runs: list[UUID]) -> list[Any]:
    async def look():
        rows = [await platform.history.run(run) for run in runs]
        return rows if all(row["finished_at"] for row in rows) else None

    return await eventually(look)


async def failed(platform: Platform, count: int) -> list[UUID]:
    """Runs that failed in one way; the shop has to run."""
    runs = await submitted(platform, count, waits=False, task="shop.refuse", args='{"how": "never"}')
    await ended(platform, runs)
    return runs


async def audited(platform: Platform, subject: object) -> list[tuple[str, str, str | None]]:
    entries = await platform.audit.page(AuditSearch(subject=str(subject)))
    return [(entry["action"], entry["actor"], entry["reason"]) for entry in entries]


async def test_an_act_does_what_its_preview_showed_and_nothing_else(platform, ada):
    shown = await submitted(platform, 3, labels={"storm": "one"})
    others = await submitted(platform, 2)
    chosen = await ada.select("cancel", task="shop.add", labels={"storm": "one"})
    later = await submitted(platform, 1, labels={"storm": "one"})

    done = await ada.act(chosen)
    again = await ada.act(str(chosen.id))

    assert (chosen.action, chosen.count) == ("cancel", 3)
    assert {run["id"] for run in chosen.sample} == set(shown)
    assert (done.selection, done.done, done.skipped, done.remaining, done.selected) == (chosen.id, 3, 0, 0, 3)
    assert again.done == 3
    states = [(await platform.history.run(run))["state"] for run in (*shown, *others, *later)]
    assert states == ["cancelled"] * 3 + ["queued"] * 3
    assert await audited(platform, chosen.id) == [("runs.cancelled", "ada", "a storm")]


async def test_an_act_of_many_steps_goes_on_until_nothing_remains_or_the_time_is_over(platform, ada):
    await submitted(platform, 1_050)
    chosen = await ada.select("cancel", domain="shop")

    first = await ada.act(chosen, within=AT_ONCE)
    rest = await ada.act(first.selection)

    assert (first.done, first.remaining, rest.done, rest.remaining) == (500, 550, 1_050, 0)
    assert len(await audited(platform, chosen.id)) == 3


async def test_results_of_deleted_runs_in_storage_go_with_them(platform, ada):
    def kept() -> list[Path]:
        return list(Path(platform.settings.storage_url).rglob("*.json"))

    async with running(Service(name="printing", settings=platform.settings, tasks=printing), platform):
        runs = await submitted(
            platform, 2, waits=False, domain="printing", task="printing.print_page", args='{"size": 300000}'
        )
        await ended(platform, runs)
    stored = len(kept())

    done = await ada.act(await ada.select("delete", task="printing.print_page", states=("completed",)))

    assert (stored, kept()) == (2, [])
    assert (done.done, done.remaining) == (2, 0)
    assert [await platform.history.run(run) for run in runs] == [None, None]


async def test_many_are_run_again_after_one_that_goes_ahead(platform, ada):
    async with running(shop_service(platform.settings, Shop()), platform):
        runs = await failed(platform, 3)
        done = await ada.act(await ada.select("replay", states=("failed",), domain="shop"), rate=1_000)
        replays = await replays_of(platform, runs)
        states = {row["id"]: row["state"] for row in await ended(platform, replays)}

    assert (len(replays), done.done) == (3, 3)
    assert states.pop(done.canary) == "failed"
    assert list(states.values()) == ["cancelled", "cancelled"]


async def replays_of(platform: Platform, runs: list[UUID]) -> list[UUID]:
    rows = await platform.ledger.pool.fetch("select id from carillon.runs where replay_of = any($1)", runs)
    return [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({}, "name at least one filter"),
        ({"states": ()}, "name at least one filter"),
        ({"task": None}, "name at least one filter"),
        ({"limit": 5}, "there is no filter 'limit'; there are args, domain, "),
        ({"state": "failed"}, "there is no filter 'state'"),
        ({"states": ("lost",)}, "there is no state 'lost'"),
    ],
)
async def test_filters_that_mean_nothing_choose_nothing(ada, filters, told):
    with pytest.raises(InvalidArgumentsError, match=told):
        await ada.select("delete", **filters)


async def test_what_cannot_be_acted_upon_says_what_can(platform, ada):
    await submitted(platform)
    chosen = await ada.select("cancel", domain="shop")

    with pytest.raises(InvalidArgumentsError, match="no act 'kill'; there are cancel, replay, settle, delete"):
        await ada.select("kill", domain="shop")
    for rate in (0, -1, 10_001, float("nan")):
        with pytest.raises(InvalidArgumentsError, match=r"how many runs start each second, from 0\.01 to 10,000"):
            await ada.act(chosen, rate=rate)
    for list_ in (ada.dead_letters.groups(limit=0), ada.dead_letters.members("ffff", limit=-1)):
        with pytest.raises(InvalidArgumentsError, match="it is a whole number from 1 on"):
            await list_
    for operator, token in ((ada, "x"), (ada, new_id()), (get_operator(platform, by="bob"), chosen)):
        with pytest.raises(NotFoundError, match="no such selection"):
            await operator.act(token)
    assert (await ada.act(chosen)).done == 1


async def test_a_group_of_failed_runs_is_looked_at_and_run_again(platform, ada):
    letters = ada.dead_letters
    async with running(shop_service(platform.settings, Shop()), platform):
        runs = await failed(platform, 3)
        (group,) = (await letters.groups("shop")).runs
        page = await letters.members(group.fingerprint, limit=2)
        rest = await letters.members(group.fingerprint, task="shop.refuse", after=page.last)
        done = await letters.replay(group.fingerprint, canary=False, rate=1_000)
        await ended(platform, await replays_of(platform, runs))
    (again,) = (await letters.groups("shop")).runs

    assert (group.task, group.count, group.message) == ("shop.refuse", 3, "it can never work")
    assert (len(page.runs), len(rest.runs)) == (2, 1)
    assert {run["id"] for run in (*page.runs, *rest.runs)} == set(runs)
    assert (page.messages, rest.messages, rest.last) == ([], [], None)
    assert (done.action, done.done, done.canary) == ("replay", 3, None)
    # The replays stand for their originals.
    assert (again.fingerprint, again.count) == (group.fingerprint, 3)
    assert set(again.sample).isdisjoint(runs)
    assert await audited(platform, done.selection) == [("runs.replayed", "ada", "a storm")]


async def test_a_group_is_discarded_and_its_runs_stay_in_the_history(platform, ada):
    letters = ada.dead_letters
    async with running(shop_service(platform.settings, Shop()), platform):
        runs = await failed(platform, 2)
    (group,) = (await letters.groups()).runs

    for other in (
        letters.discard(group.fingerprint, task="shop.add"),
        letters.replay(group.fingerprint, task="shop.x"),
    ):
        with pytest.raises(NotFoundError, match="no such group"):
            await other
    done = await letters.discard(group.fingerprint)

    assert (done.count, done.remaining) == (2, 0)
    assert await letters.groups() == ([], [], False)
    assert [(await platform.history.run(run))["state"] for run in runs] == ["failed"] * 2


async def buried(platform: Platform, count: int) -> str:
    queue = f"{platform.settings.rabbit_queue_prefix}.shop.events"
    for _ in range(count):
        await platform.bury(queue, "no JSON", b"{", {})
    (group,) = (await get_operator(platform).dead_letters.groups()).messages
    return group.fingerprint


@pytest.mark.parametrize("transport", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def test_messages_go_back_to_their_queue_and_what_returns_is_left_alone(platform, ada):
    letters, name = ada.dead_letters, await buried(platform, 3)

    async def returned() -> list[Any]:
        return [one for one in await platform.history.dead_letters() if one["reason"] != "no JSON"]

    async def first_of_them() -> Redelivered | None:
        # Refused, and kept, until the shop has its queue.
        with suppress(PlatformUnavailableError):
            return await letters.redeliver(name, limit=1)
        return None

    async with running(shop_service(platform.settings, Shop()), platform):
        one = await eventually(first_of_them)
        rest = await letters.redeliver(name, until=one.until)
        back = await eventually(lambda: at_least(returned, 3))
        mended = await letters.redeliver_message(back[0]["id"], b"{}")

    assert (one.count, one.remaining, one.cut, rest.count, rest.remaining) == (1, 2, 0, 2, 0)
    assert mended["body"] == b"{"
    assert await audited(platform, name) == [("message.redelivered", "ada", "a storm")] * 2
    assert await audited(platform, back[0]["id"]) == [("message.redelivered", "ada", "a storm")]


async def at_least(found, count):
    rows = await found()
    return rows if len(rows) >= count else None


@pytest.mark.parametrize("transport", ["postgres"])
async def test_messages_that_cannot_be_handed_over_are_kept(platform, ada):
    letters, name = ada.dead_letters, await buried(platform, 2)
    (first, _) = (await letters.members(name)).messages

    with pytest.raises(PlatformUnavailableError, match="set RABBIT_URL"):
        await letters.redeliver(name)
    with pytest.raises(PlatformUnavailableError, match="set RABBIT_URL"):
        await letters.redeliver_message(str(first["id"]))
    with pytest.raises(RunStateError, match=f"carillon dead-letters redeliver {name}"):
        await letters.replay(name)
    assert (await letters.message(first["id"]))["body"] == b"{"
    assert (await letters.discard(name)).count == 2
    for act in (letters.redeliver(name), letters.members(name), letters.message(first["id"])):
        with pytest.raises(NotFoundError):
            await act


@pytest.mark.parametrize("name", ["", "x" * 65, "a\0", "ä", "no-name", "ffff"])
async def test_what_is_no_group_is_not_found(ada, name):
    letters = ada.dead_letters
    for act in (letters.members(name), letters.replay(name), letters.redeliver(name), letters.discard(name)):
        with pytest.raises(NotFoundError, match="`carillon dead-letters`"):
            await act
    for act in (letters.message(name), letters.redeliver_message(name)):
        with pytest.raises(NotFoundError, match="no message has this id"):
            await act
