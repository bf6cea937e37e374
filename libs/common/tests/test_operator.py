"""What an operator does from Python, on both transports and the twin: one run, one task, one domain."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from shop import Shop, shop_service

import carillon
from carillon.errors import (
    InvalidArgumentsError,
    NotConnectedError,
    NotFoundError,
    ReplayConflictError,
    RunStateError,
    UnfitArgumentsError,
    UnknownTaskError,
)
from carillon.ids import new_id
from carillon.ledger.audit import AuditSearch, account
from carillon.ledger.records import NewRun
from carillon.operator import Operator, get_operator
from carillon.platform import Platform
from carillon.testing import eventually, running


async def submitted(platform: Platform, task: str = "add", args: str = '{"a": 1}', *, waits: bool = False) -> UUID:
    run_at = datetime.now(UTC) + timedelta(hours=1) if waits else None
    run = NewRun(id=new_id(), domain="shop", task=f"shop.{task}", args=args, run_at=run_at)
    return (await platform.submit(run)).id


async def ended(platform: Platform, run: UUID) -> Any:
    async def look():
        row = await platform.history.run(run)
        return row if row["finished_at"] else None

    return await eventually(look)


async def audited(platform: Platform, subject: object) -> list[Any]:
    return list(reversed(await platform.audit.page(AuditSearch(subject=str(subject)))))


@pytest.fixture
async def shop(platform):
    """The shop, open, with a person who steers it."""
    async with running(shop_service(platform.settings, Shop()), platform):
        yield get_operator(platform, by="ada", reason="maintenance")


@pytest.fixture
def ada(platform) -> Operator:
    return get_operator(platform, by="ada", reason="maintenance")


async def test_an_act_is_recorded_with_who_did_it_why_and_from_where(platform, ada):
    run = await submitted(platform, waits=True)

    done = [await ada.pause(run=run), await ada.resume(run=str(run)), await ada.cancel(run), await ada.cancel(run)]

    assert done == [(True, "paused"), (True, "queued"), ("cancelled", 1, 0), ("cancelled", 0, 0)]
    entries = await audited(platform, run)
    assert [entry["action"] for entry in entries] == ["run.paused", "run.resumed", "run.cancelled"]
    assert {(entry["actor"], entry["reason"]) for entry in entries} == {("ada", "maintenance")}
    assert all(entry["origin"].startswith(f"test (process {os.getpid()}) of {account()} on ") for entry in entries)


async def test_the_platform_that_is_connected_is_steered_in_the_name_of_the_account(platform):
    run = await submitted(platform, waits=True)

    await carillon.get_operator().cancel(run)

    assert [(entry["actor"], entry["reason"]) for entry in await audited(platform, run)] == [(account(), None)]


def test_without_a_connection_it_says_what_to_do():
    with pytest.raises(NotConnectedError, match=r"carillon\.connect"):
        carillon.get_operator()


async def test_a_reason_that_cannot_be_kept_is_refused_before_anything_is_done(platform):
    with pytest.raises(ValueError, match="the reason may have 500 characters"):
        get_operator(platform, reason="x" * 501)


@pytest.mark.parametrize("named", [{"domain": "shop"}, {"task": "shop.add"}])
async def test_a_domain_or_a_task_is_held_until_it_is_resumed(platform, shop, named):
    (name,) = named.values()

    paused = [await shop.pause(**named), await shop.pause(**named)]
    held = await shop.holds()
    run = await submitted(platform)
    resumed = [await shop.resume(**named), await shop.resume(**named)]
    row = await ended(platform, run)

    assert paused == resumed == [(True, None), (False, None)]
    assert [(hold.name, hold.actor, hold.reason) for hold in held] == [(name, "ada", "maintenance")]
    assert await shop.holds() == []
    assert row["state"] == "completed"


@pytest.mark.parametrize("word", ["pause", "resume"])
async def test_what_nobody_knows_is_neither_held_nor_let_go(shop, word):
    for named in (
        {"domain": "shoe"},
        {"domain": "shop.add"},
        {"domain": "a\0"},
        {"task": "shop.none"},
        {"task": "shop"},
    ):
        with pytest.raises(InvalidArgumentsError, match=r"no domain and no task is called .* `carillon doctor` lists"):
            await getattr(shop, word)(**named)
    for named in ({}, {"domain": "shop", "task": "shop.add"}):
        with pytest.raises(InvalidArgumentsError, match="name a domain, a task or a run, and one of them alone"):
            await getattr(shop, word)(**named)


@pytest.mark.parametrize("run", [new_id(), str(new_id()), "shop.add", ""], ids=["id", "text", "name", "nothing"])
async def test_a_run_that_nobody_knows_cannot_be_steered(ada, run):
    for act in (ada.cancel(run), ada.pause(run=run), ada.resume(run=run), ada.replay(run), ada.settle(run)):
        with pytest.raises(NotFoundError, match=f"no run has the id {str(run)!r}; it was deleted, or ended"):
            await act


async def test_what_the_state_of_a_run_forbids_is_told_with_what_can_be_done(platform, shop):
    completed, waits = await submitted(platform), await submitted(platform, waits=True)
    await ended(platform, completed)

    for act, told in (
        (shop.cancel(completed), "has ended completed, so there is nothing to cancel"),
        (shop.pause(run=completed), "has ended completed; only one that waits can be paused"),
        (shop.resume(run=completed), "has ended completed; what failed or was cancelled can be replayed"),
        (shop.replay(completed), "ended completed; only what failed, was cancelled or is partial can be run again"),
        (shop.replay(waits), "has not ended"),
        (shop.settle(completed), "is completed; only one that failed can be settled"),
        (shop.settle(waits), "is queued; only one that failed can be settled"),
    ):
        with pytest.raises(RunStateError, match=told):
            await act
    assert await audited(platform, completed) == await audited(platform, waits) == []


async def test_a_run_that_executes_cannot_be_paused_and_is_cancelled(platform):
    visited = Shop()
    async with running(shop_service(platform.settings, visited), platform):
        operator, run = get_operator(platform), await submitted(platform, "wait_at_the_gate", '{"name": "x"}')
        await visited.entered.wait()
        with pytest.raises(RunStateError, match="executes already; cancel it, or pause its task"):
            await operator.pause(run=run)
        asked = await operator.cancel(run)
        row = await ended(platform, run)

    assert asked == ("running", 0, 1)
    assert row["state"] == "cancelled"


async def test_a_failed_run_is_run_again_with_arguments_that_fit(platform, shop):
    run = await submitted(platform, "refuse", '{"how": "never"}')
    await ended(platform, run)

    await shop.pause(task="shop.refuse")
    made, again = [await shop.replay(run, {"how": "cancel"}), await shop.replay(str(run))]
    await shop.resume(task="shop.refuse")
    row = await ended(platform, made.id)

    assert (made.created, again.created, again.id) == (True, False, made.id)
    assert (row["replay_of"], row["args"], row["state"]) == (run, {"how": "cancel"}, "cancelled")
    (entry,) = await audited(platform, run)
    assert (entry["action"], entry["actor"], entry["reason"]) == ("run.replayed", "ada", "maintenance")


async def test_arguments_that_do_not_fit_are_refused_and_each_fault_is_named(platform, shop):
    run = await submitted(platform, waits=True)
    await shop.cancel(run)

    with pytest.raises(UnfitArgumentsError, match=r"do not fit shop\.add: /args/a must be integer") as refused:
        await shop.replay(run, {"a": "one", "b": 2})
    for args, told in (
        ({}, "lacks the field 'a'"),
        ({"a": 1, "c": 2}, "not taken: c"),
        ({"a": 1, "b": 3.5}, "integer"),
    ):
        with pytest.raises(UnfitArgumentsError, match=told):
            await shop.replay(run, args)
    for args, told in (({"a": object()}, "not JSON"), ({"a": "x" * 300_000}, "262144"), ({"a": "\0"}, "NUL")):
        with pytest.raises(InvalidArgumentsError, match=told):
            await shop.replay(run, args)

    assert [fault.pointer for fault in refused.value.faults] == ["/args/a"]
    assert [entry["action"] for entry in await audited(platform, run)] == ["run.cancelled"]


async def test_an_earlier_replay_with_other_arguments_is_no_answer_to_an_operator(platform, shop):
    run = await submitted(platform, waits=True)
    await shop.pause(task="shop.add")
    await shop.cancel(run)
    await shop.replay(run, {"a": 2})

    with pytest.raises(ReplayConflictError, match="cancel that one first"):
        await shop.replay(run, {"a": 3})


async def test_arguments_that_nobody_can_check_are_refused_and_the_same_ones_are_taken(platform, ada):
    run = await submitted(platform, waits=True)
    await ada.cancel(run)

    with pytest.raises(UnknownTaskError, match=r"no service offers shop\.add any more, .* replay without"):
        await ada.replay(run, {"a": 2})

    assert (await ada.replay(run)).created


async def test_a_failed_run_is_settled_once(platform, shop):
    run = await submitted(platform, "refuse", '{"how": "never"}')
    await ended(platform, run)

    settled = [await shop.settle(run), await shop.settle(run)]

    assert settled == [True, False]
    assert [entry["action"] for entry in await audited(platform, run)] == ["run.settled"]
