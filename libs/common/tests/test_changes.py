"""The history of a run: every change of its state, by whom and why, from what is kept anyway."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from shop import Shop, shop_service

from carillon.ids import new_id
from carillon.ledger.audit import Actor
from carillon.ledger.records import After, NewRun
from carillon.platform import Platform
from carillon.testing import eventually, running

ADA = Actor("ada", "a test")


async def submitted(platform: Platform, task: str, args: str = "{}", **options: Any) -> UUID:
    run = NewRun(id=new_id(), domain="shop", task=f"shop.{task}", args=args, actor="bob", **options)
    return (await platform.submit(run)).id


async def told(platform: Platform, run: UUID) -> list[tuple[str | None, str, str]]:
    """State, who and what of each change, without workers' ids and what the transport was given."""
    changes = await platform.history.changes(run)
    assert [change.at for change in changes] == sorted(change.at for change in changes)
    return [
        (change.state, change.by.split(" ", 1)[0], change.what)
        for change in changes
        if change.what != "given to the transport"
    ]


async def ended(platform: Platform, run: UUID) -> None:
    async def look() -> bool:
        return (await platform.history.run(run))["finished_at"] is not None

    await eventually(look)


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_attempts_and_what_operators_did_are_told_in_order(platform):
    run = await submitted(platform, "stumble", '{"times": 1}')
    await platform.ledger.steering.pause_run(run, ADA, "the floor is being cleaned")
    await platform.ledger.steering.resume_run(run, ADA)

    async with running(shop_service(platform.settings, Shop()), platform):
        await ended(platform, run)

    assert await told(platform, run) == [
        ("queued", "bob", "accepted"),
        ("paused", "ada", "paused: the floor is being cleaned"),
        ("queued", "ada", "resumed"),
        ("running", "worker", "attempt 1 started"),
        ("retrying", "worker", "attempt 1 failed, and is tried again: the floor is wet"),
        ("running", "worker", "attempt 2 started"),
        ("completed", "worker", "ended completed"),
    ]


async def test_who_cancelled_it_and_what_ran_it_again_is_told(platform):
    run = await submitted(platform, "add", '{"a": 1}', run_at=in_an_hour())
    await platform.ledger.steering.cancel(run, ADA, "not needed")
    again = (await platform.ledger.replays.replay(run, ADA, "needed after all")).id

    assert await told(platform, run) == [
        ("queued", "bob", "accepted"),
        ("cancelled", "ada", "ended cancelled: cancelled by ada: not needed"),
        (None, "ada", "cancelled, with all that it submitted: not needed"),
        (None, "ada", f"run again as {again}"),
    ]
    assert (await told(platform, again))[0] == ("queued", "ada", f"accepted, to repeat {run}")


async def test_what_waited_for_others_and_what_lost_its_worker_is_told(platform):
    first = await submitted(platform, "add", '{"a": 1}')
    second = await submitted(platform, "add", '{"a": 2}', after=After(runs=[first]))
    dead = new_id()
    await platform.ledger.enrol(dead, "shop", "elsewhere", 1, "0", 1)
    await platform.ledger.start((first, 1, dead))
    await platform.ledger.retire(dead)

    async with running(shop_service(platform.settings, Shop()), platform):
        await ended(platform, second)

    assert [change[::2] for change in await told(platform, first)][:3] == [
        ("queued", "accepted"),
        ("running", "attempt 1 started"),
        ("retrying", "attempt 1 lost its worker, and is tried again: its worker stopped answering"),
    ]
    assert [change[::2] for change in await told(platform, second)] == [
        ("pending", "accepted"),
        ("queued", "what it waited for has ended"),
        ("running", "attempt 1 started"),
        ("completed", "ended completed"),
    ]


async def test_what_failed_tells_that_its_task_was_paused_and_that_it_was_settled(platform):
    async with running(shop_service(platform.settings, Shop()), platform):
        await platform.ledger.steering.pause("shop.refuse", ADA, "deploying")
        run = await submitted(platform, "refuse", '{"how": "fail"}')
        await platform.ledger.steering.resume("shop.refuse", ADA)
        await ended(platform, run)
        await platform.ledger.replays.settle([run], ADA, "known")

    assert await told(platform, run) == [
        ("queued", "bob", "accepted"),
        (None, "ada", "its task was resumed"),
        ("running", "worker", "attempt 1 started"),
        ("failed", "worker", "ended failed: it can never work"),
        (None, "ada", "settled: nothing more has to be done about it: known"),
    ]


@pytest.mark.parametrize("expired", [True, False])
async def test_what_never_started_tells_why(platform, expired):
    first = await submitted(platform, "add", '{"a": 1}', run_at=in_an_hour())
    now = datetime.now(UTC)
    run = await submitted(platform, "add", expires_at=now) if expired else await _in_vain(platform, first)
    await platform.ledger.expire("shop")

    state, by, what = (await told(platform, run))[-1]

    assert (state, by) == ("cancelled", "platform")
    assert ("not started before" if expired else "it needed the run") in what


async def _in_vain(platform: Platform, needed: UUID) -> UUID:
    run = await submitted(platform, "add", after=After(runs=[needed]))
    await platform.ledger.steering.cancel(needed, ADA)
    return run


async def test_a_run_that_nobody_knows_has_no_history(platform):
    assert await platform.history.changes(new_id()) == []
