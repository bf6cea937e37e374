"""Running again with other arguments, on both transports and the twin: an earlier replay answers only its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from shop import Shop, shop_service

from carillon.errors import ReplayConflictError
from carillon.ids import new_id
from carillon.ledger.audit import Actor, AuditSearch
from carillon.ledger.records import NewRun, Submitted
from carillon.operator import get_operator
from carillon.platform import Platform
from carillon.testing import eventually, running

ADA = Actor("ada", "a test")


async def cancelled_run(platform: Platform, **args: Any) -> UUID:
    run = NewRun(
        id=new_id(), domain="shop", task="shop.add", args=orjson.dumps(args).decode(),
        run_at=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    await platform.submit(run)
    await platform.ledger.steering.cancel(run.id, ADA)
    return run.id


async def test_an_earlier_replay_with_other_arguments_is_no_answer(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    earlier = await replays.replay(run, ADA, args={"a": 2})

    with pytest.raises(ReplayConflictError, match=f"{earlier.id} .* is queued; cancel that one") as refused:
        await replays.replay(run, ADA, args={"a": 3})

    assert refused.value.run == earlier.id
    assert len(await platform.audit.page(AuditSearch(subject=str(run)))) == 2


async def test_what_to_do_where_the_earlier_replay_went_well_is_told(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    async with running(shop_service(platform.settings, Shop()), platform):
        earlier = await replays.replay(run, ADA, args={"a": 2})
        await eventually(lambda: completed(platform, earlier.id))

        with pytest.raises(ReplayConflictError, match=f"{earlier.id} .* is completed; submit its task anew"):
            await replays.replay(run, ADA, args={"a": 3})


async def completed(platform: Platform, run: UUID) -> bool:
    return (await platform.history.run(run))["state"] == "completed"


async def test_two_who_want_other_arguments_at_once_do_not_get_each_others_replay(platform):
    run = await cancelled_run(platform, a=1)

    wishes = [platform.ledger.replays.replay(run, ADA, args={"a": number}) for number in range(5)]
    answers = await asyncio.gather(*wishes, return_exceptions=True)

    (made,) = [answer for answer in answers if isinstance(answer, Submitted)]
    assert made.created
    assert {error.run for error in answers if isinstance(error, ReplayConflictError)} == {made.id}


@pytest.mark.parametrize(
    ("earlier", "wish"),
    [
        ({"a": 1, "b": [{"c": None}]}, {"b": [{"c": None}], "a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1e20}, {"a": 1e20}),
    ],
    ids=["in another order", "a number in another spelling", "a number that is kept in another spelling"],
)
async def test_the_same_arguments_are_the_same_replay_however_they_are_spelled(platform, earlier, wish):
    run, replays = await cancelled_run(platform, a=0), platform.ledger.replays

    asked = [await replays.replay(run, ADA, args=args) for args in (earlier, wish)]

    assert [(each.id, each.created) for each in asked] == [(asked[0].id, True), (asked[0].id, False)]


@pytest.mark.parametrize(
    ("earlier", "wish"),
    [({"a": 1}, {"a": True}), ({"a": [1, 2]}, {"a": [2, 1]}), ({"a": 1}, {"a": 1, "b": None}), ({"a": 1}, {"a": "1"})],
)
async def test_what_only_looks_alike_are_other_arguments(platform, earlier, wish):
    run, replays = await cancelled_run(platform, a=0), platform.ledger.replays
    await replays.replay(run, ADA, args=earlier)

    with pytest.raises(ReplayConflictError):
        await replays.replay(run, ADA, args=wish)


async def test_the_arguments_of_the_run_itself_are_a_wish_too(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    await replays.replay(run, ADA)

    same = await replays.replay(run, ADA, args={"a": 1})

    assert not same.created


async def test_who_names_no_arguments_is_answered_by_any_replay(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    mended = await replays.replay(run, ADA, args={"a": 2})

    assert (await replays.replay(run, ADA)).id == mended.id


async def test_other_arguments_are_taken_once_the_earlier_replay_was_cancelled(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    earlier = await replays.replay(run, ADA, args={"a": 2})
    await platform.ledger.steering.cancel(earlier.id, ADA)

    again = await replays.replay(run, ADA, args={"a": 3})

    assert again.created
    assert (await platform.history.run(again.id))["args"] == {"a": 3}


@pytest.mark.parametrize("last", ["the first", "the replay"])
async def test_of_a_run_and_its_cancelled_replay_one_is_run_again(platform, last):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    earlier = await replays.replay(run, ADA)
    await platform.ledger.steering.cancel(earlier.id, ADA)
    once, twice = (earlier.id, run) if last == "the first" else (run, earlier.id)

    made = await replays.replay(once, ADA)
    again = await replays.replay(twice, ADA)

    assert made.created
    assert (again.created, again.id) == (False, made.id)


async def test_replays_of_replays_are_of_the_first_however_many(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    line = [run]
    for _ in range(3):
        made = await replays.replay(line[-1], ADA)
        assert made.created
        await platform.ledger.steering.cancel(made.id, ADA)
        line.append(made.id)
    made = await replays.replay(line[1], ADA)

    assert [(await replays.replay(one, ADA)).id for one in line] == [made.id] * 4


@pytest.mark.real("acts on many runs")
async def test_an_act_on_a_run_and_on_its_cancelled_replay_runs_one_of_them(platform):
    run, replays = await cancelled_run(platform, a=1), platform.ledger.replays
    earlier = await replays.replay(run, ADA)
    await platform.ledger.steering.cancel(earlier.id, ADA)
    operator = get_operator(platform, by="ada")

    done = await operator.act(await operator.select("replay", states=["cancelled"], domain="shop"), canary=False)

    assert (done.done, done.skipped) == (2, 1)
    rows = await platform.ledger.pool.fetch("select id from carillon.runs where state = 'queued'")
    assert len(rows) == 1


@pytest.mark.real("acts on many runs")
async def test_replays_of_a_run_that_was_deleted_still_do_the_same_work(platform):
    run, replays, operator = await cancelled_run(platform, a=1), platform.ledger.replays, get_operator(platform)
    second = (await replays.replay(run, ADA)).id
    await platform.ledger.steering.cancel(second, ADA)
    third = (await replays.replay(second, ADA)).id
    await platform.ledger.steering.cancel(third, ADA)
    await platform.ledger.pool.execute("delete from carillon.runs where id = $1", run)

    made, again = [await operator.replay(one) for one in (second, third)]

    assert (made.created, again.created, again.id) == (True, False, made.id)
