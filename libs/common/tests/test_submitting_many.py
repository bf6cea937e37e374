"""Submitting many runs together, over both transports and with the twin."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from shop import Shop, shop_service
from taskiq.exceptions import SendTaskError

from carillon import platform as module
from carillon.errors import IdempotencyConflictError, InvalidArgumentsError, NotConnectedError
from carillon.ids import new_id
from carillon.ledger.records import NewRun, Priority, Submitted
from carillon.many import NotAllAcceptedError
from carillon.platform import Platform
from carillon.task import Task
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


def adding(platform: Platform) -> Task[..., Any]:
    """The task `shop.add`, connected."""
    service = shop_service(platform.settings, Shop())
    service._broker(platform)
    return service.tasks.declared["shop.add"]


async def test_options_are_those_of_every_run(platform):
    noon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=20)

    submitted = await adding(platform).kiq_many(
        [{"a": 1}, {"a": 2}],
        priority="urgent",
        run_at=noon,
        expires=noon + timedelta(hours=1),
        deadline=timedelta(days=2),
        callback_url="https://example.org/ended",
        labels={"customer": "7"},
    )

    rows = [await platform.history.run(UUID(one.task_id)) for one in submitted]
    assert [row["args"] for row in rows] == [{"a": 1}, {"a": 2}]
    for row in rows:
        assert (row["priority"], row["labels"], row["callback_url"]) == (
            Priority.URGENT, {"customer": "7"}, "https://example.org/ended",
        )  # fmt: skip
        assert (row["run_at"], row["expires_at"]) == (noon, noon + timedelta(hours=1))
        assert timedelta(hours=47) < row["deadline_at"] - datetime.now(UTC) <= timedelta(days=2)


async def test_options_that_do_not_fit_submit_nothing_and_read_no_call(platform):
    calls = iter([{"a": 1}])

    with pytest.raises(InvalidArgumentsError, match="there is no option 'dealy'"):
        await adding(platform).kiq_many(calls, dealy=timedelta(hours=1))

    assert list(calls) == [{"a": 1}]
    assert await states(platform) == []


async def test_one_key_for_many_tells_them_apart_by_their_place(platform):
    task = adding(platform)
    calls = [{"a": 1}, {"a": 1}, {"a": 2}]
    alone = await task.options(idempotency_key="bells").kiq(1)

    first = await task.kiq_many(calls[:2], idempotency_key="bells")
    again = await task.kiq_many(calls, idempotency_key="bells")

    assert [one.task_id for one in again[:2]] == [one.task_id for one in first]
    assert len({one.task_id for one in (alone, *again)}) == 4
    assert len(await states(platform)) == 4
    row = await platform.history.run(UUID(again[2].task_id))
    assert row["idempotency_key"] == "bells"


async def test_when_a_later_thousand_fails_the_first_is_told_and_the_rest_can_be_submitted(platform):
    task = adding(platform)
    calls: list[dict[str, object]] = [{"a": number} for number in range(1_005)]
    spoilt = [*calls[:1_002], {"a": "\x00"}, *calls[1_003:]]

    with pytest.raises(NotAllAcceptedError, match=r"1,000 runs were accepted, .* same idempotency_key") as failed:
        await task.kiq_many(spoilt, idempotency_key="bells")
    whole = await task.kiq_many(calls, idempotency_key="bells")

    assert isinstance(failed.value.__cause__, InvalidArgumentsError)
    assert [one.task_id for one in failed.value.accepted] == [one.task_id for one in whole[:1_000]]
    assert len({one.task_id for one in whole}) == len(await states(platform)) == 1_005


async def test_what_is_at_fault_is_counted_over_all_the_calls(platform):
    task = adding(platform)
    calls = [{"a": number} for number in range(1_003)]
    await task.kiq_many(calls, idempotency_key="bells")

    with pytest.raises(NotAllAcceptedError) as failed:
        await task.kiq_many([*calls[:1_001], {"a": 7}, calls[1_002]], idempotency_key="bells")

    assert isinstance(failed.value.__cause__, IdempotencyConflictError)
    assert failed.value.positions == (1_001,)


async def test_calls_that_cannot_be_read_to_the_end_lose_nothing_of_what_was_accepted(platform):
    def calls() -> Iterator[dict[str, int]]:
        for number in range(1_001):
            yield {"a": number}
        raise ValueError("the file is torn")

    with pytest.raises(NotAllAcceptedError, match=r"torn.*with an idempotency_key") as failed:
        await adding(platform).kiq_many(calls())

    assert len(failed.value.accepted) == 1_000
    assert await states(platform) == ["queued"] * 1_000
