"""Submitting many runs together, over both transports and with the twin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from shop import Shop, shop_service
from taskiq.exceptions import SendTaskError

from carillon import platform as module
from carillon.errors import IdempotencyConflictError, NotConnectedError
from carillon.ids import new_id
from carillon.ledger.records import NewRun, Priority, Submitted
from carillon.platform import Platform
from carillon.testing import eventually, running


def add(a: int, **options: Any) -> NewRun:
    given = {"id": new_id(), "domain": "shop", "task": "shop.add", "args": f'{{"a": {a}}}'} | options
    return NewRun(**given)


async def states(platform: Platform) -> list[str]:
    rows = await platform.history.count_by_state(datetime.now(UTC) - timedelta(hours=1))
    return [row["state"] for row in rows for _ in range(row["count"])]


async def test_runs_submitted_together_are_accepted_in_order_and_each_is_executed_once(platform):
    shop = Shop()
    runs = [add(number) for number in range(120)]

    async def all_ended() -> bool:
        return sum(shop.done.values()) >= 120 and set(await states(platform)) == {"completed"}

    async with running(shop_service(platform.settings, shop), platform):
        accepted = await platform.submit_many(runs)
        await eventually(all_ended, within=20)

    assert accepted == [Submitted(run.id, created=True) for run in runs]
    assert shop.done == {f"add {number}": 1 for number in range(120)}


@pytest.mark.real("marks of what was dispatched")
async def test_what_does_not_fit_in_the_window_waits_in_the_ledger(platform, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 3)

    await platform.submit_many([add(number) for number in range(6)])
    await platform.submit_many([add(number) for number in range(4)])

    given = await platform.ledger.pool.fetchval("select count(*) from carillon.runs where dispatched_at is not null")
    assert given == (0 if platform.transport.is_ledger else 3)
    assert await states(platform) == ["queued"] * 10
    if not platform.transport.is_ledger:
        await eventually(lambda: is_waiting(platform, 3))


async def is_waiting(platform: Platform, count: int) -> bool:
    return await platform.transport.waiting("shop", Priority.NORMAL) == count


@pytest.mark.real("dispatching")
async def test_closing_the_platform_waits_for_what_is_under_way_to_the_broker(settings, platform):
    async with Platform(settings, name="leaves") as leaving:
        await leaving.submit_many([add(number) for number in range(500)])

    assert leaving._dispatching == set()
    if not platform.transport.is_ledger:
        assert await is_waiting(platform, 500)


async def test_the_same_ids_again_make_nothing_new(platform):
    runs = [add(number, idempotency_key=f"k{number}") for number in range(3)]
    await platform.submit_many(runs[:2])

    again = await platform.submit_many([*runs, runs[2]])

    assert [submitted.created for submitted in again] == [False, False, True, False]
    assert len(await states(platform)) == 3


@pytest.mark.parametrize("known", [True, False], ids=["in the ledger", "in the same batch"])
async def test_one_id_for_other_arguments_refuses_all(platform, known):
    first = add(1, idempotency_key="k")
    other = add(2, id=first.id, idempotency_key="k")
    if known:
        await platform.submit(first)

    with pytest.raises(IdempotencyConflictError) as refused:
        await platform.submit_many([add(7), *([] if known else [first]), other, add(8, idempotency_key="fresh")])

    assert refused.value.positions == ((1,) if known else (2,))
    assert len(await states(platform)) == (1 if known else 0)


async def test_calls_of_a_task_are_submitted_together_and_can_be_waited_for(platform):
    service = shop_service(platform.settings, Shop())
    task = service.tasks.declared["shop.add"]
    async with running(service, platform):
        submitted = await task.kiq_many({"a": number} for number in range(1_100))
        results = [await one.wait_result(timeout=20) for one in (submitted[0], submitted[-1])]

    assert len({one.task_id for one in submitted}) == 1_100
    assert [result.return_value for result in results] == [2, 1_101]


async def test_calls_of_a_task_with_a_label_unique_are_told_which_run_stands_for_each(platform):
    service = shop_service(platform.settings, Shop())
    task = service.tasks.declared["shop.add"]
    service._broker(platform)
    task.labels["unique"] = "{}"

    submitted = await task.kiq_many([{"a": 1}, {"a": 2}, {"a": 1}])

    assert submitted[0].task_id == submitted[2].task_id != submitted[1].task_id
    assert await states(platform) == ["queued"] * 2


async def test_calls_that_do_not_fit_accept_nothing(platform):
    service = shop_service(platform.settings, Shop())
    task = service.tasks.declared["shop.add"]
    with pytest.raises(SendTaskError) as unconnected:
        await task.kiq_many([{"a": 1}])
    service._broker(platform)

    with pytest.raises(SendTaskError):
        await task.kiq_many([{"a": 1}, {"a": "\x00"}])

    assert isinstance(unconnected.value.__cause__, NotConnectedError)
    assert await states(platform) == []
