"""The five patterns in a rehearsal: what an order is told, and what is left in the world."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carillon.testing import Rehearsal
from orders.remembered import RememberedStore
from orders.scenarios import World
from orders.tasks import (
    call_external_api_with_circuit_breaker,
    fetch_user_data_with_fallback,
    idempotent_payment,
    process_batch_with_partial_success,
    tasks,
)
from orders.warehouse import Delivery
from orders.workflows import payment_saga


@pytest.fixture
def world():
    return World(RememberedStore(Delivery(id="first", item="bell", units=3)))


@pytest.fixture
async def rehearsal(world):
    async with Rehearsal(tasks, resources=world.resources) as rehearsal:
        yield rehearsal


async def paid(rehearsal, **arguments):
    task = await payment_saga.kiq(**({"order_id": "order_123", "user_id": "user_456", "amount": 99.99} | arguments))
    await rehearsal.advance(timedelta(minutes=5))
    return rehearsal.run(task)


@pytest.mark.usefixtures("rehearsal")
async def test_the_fourth_example_of_the_guide_works_word_for_word(rehearsal, capsys):
    task = await payment_saga.kiq(
        order_id="order_123",
        user_id="user_456",
        amount=99.99,
    )

    result = await task.wait_result()

    assert result.return_value["status"] == "completed"


async def test_a_payment_reserves_charges_and_ships(rehearsal, world):
    run = await paid(rehearsal)

    assert run.result == {"status": "completed", "order": "order_123", "cents": 9999}
    assert world.effects() == {
        "in stock": {"bell": 2}, "held": {}, "shipped": {"bell": 1},
        "booked": {"order_123": 9999}, "taken": {"order_123": 9999}, "wrong": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "compensations", "reason"),
    [
        ({"units": 4}, [], "there are not 4 units of 'bell' in stock; nothing was reserved"),
        ({"user_id": "broke-bob"}, ["release_inventory"], "the bank declines broke-bob; nothing was charged"),
        (
            {"user_id": "nowhere-man"},
            ["refund_payment", "release_inventory"],
            "the carrier knows no address of nowhere-man; nothing was shipped",
        ),
    ],
)
async def test_what_was_done_is_taken_back_in_reverse_order(rehearsal, world, arguments, compensations, reason):
    before = world.effects()

    run = await paid(rehearsal, **arguments)

    assert run.state == "completed"
    assert run.result == {
        "status": "rolled_back", "order": "order_123", "reason": reason, "compensations": compensations,
    }  # fmt: skip
    assert world.effects() == before


async def test_the_same_order_again_does_nothing_more(rehearsal, world):
    await paid(rehearsal)
    once = world.effects()

    run = await paid(rehearsal)

    assert run.result["status"] == "completed"
    assert world.effects() == once


@pytest.mark.parametrize("arguments", [{"amount": 0.001}, {"units": 0}])
async def test_an_order_that_cannot_be_fails_before_anything_is_done(rehearsal, world, arguments):
    before = world.effects()

    run = await paid(rehearsal, **arguments)

    assert (run.state, run.error["type"]) == ("failed", "InvalidArgumentsError")
    assert world.effects() == before


async def test_a_carrier_that_does_not_answer_is_left_alone_and_asked_again_after_a_pause(rehearsal, world):
    world.partners.away.add("carrier")
    first = await call_external_api_with_circuit_breaker.kiq("17")
    await rehearsal.advance(timedelta(seconds=20))
    asked = world.partners.asked["carrier"]
    others = [await call_external_api_with_circuit_breaker.kiq(str(n)) for n in range(5)]
    await rehearsal.settle()

    assert world.partners.asked["carrier"] == asked == 3
    assert {rehearsal.run(one).attempts[-1].error["type"] for one in others} == {"CircuitOpenError"}

    world.partners.away.clear()
    await rehearsal.advance(timedelta(minutes=5))

    assert {rehearsal.run(one).state for one in [first, *others]} == {"completed"}
    assert rehearsal.run(first).result == {"order_id": "17", "cents": 490}


async def test_what_is_known_of_a_user_is_degraded_where_the_directory_does_not_answer(rehearsal, world):
    async def fetched():
        task = await fetch_user_data_with_fallback.kiq("ada")
        await rehearsal.advance(timedelta(seconds=10))
        result = rehearsal.run(task).result
        return result["value"]["name"], result["source"], result["degraded"]

    fresh = await fetched()
    world.partners.away.add("directory")
    copied = await fetched()
    world.partners.away.add("copy")
    kept = await fetched()

    assert (fresh, copied, kept) == (
        ("Ada", "directory", False),
        ("Ada", "copy", True),
        ("Ada", "last good", True),
    )


async def test_a_batch_with_a_wrong_delivery_ends_partial_and_the_others_are_in_stock(rehearsal, world):
    units = {"a": 5, "b": 0, "c": 2}
    task = await process_batch_with_partial_success.kiq(
        [Delivery(id=name, item="gong", units=number) for name, number in units.items()]
    )
    await rehearsal.advance(timedelta(minutes=1))
    run = rehearsal.run(task)

    assert run.state == "partial"
    assert [done["value"] for done in run.result["successful"]] == ["a", "c"]
    assert [failed["reason"] for failed in run.result["failed"]] == [
        "WrongDeliveryError: the delivery b has 0 units; it has 1 to 1,000,000"
    ]
    assert world.effects()["in stock"] == {"bell": 3, "gong": 7}


async def test_a_batch_of_which_most_is_wrong_fails(rehearsal):
    task = await process_batch_with_partial_success.kiq(
        [Delivery(id=str(n), item="gong", units=n % 3 // 2) for n in range(3)]
    )
    await rehearsal.advance(timedelta(minutes=1))

    assert rehearsal.run(task).state == "failed"


async def test_the_same_payment_twice_takes_money_once_and_tells_the_same(rehearsal, world):
    results = []
    for _ in range(2):
        task = await idempotent_payment.kiq(idempotency_key="gift-7", user_id="ada", amount=5.0)
        await rehearsal.advance(timedelta(minutes=1))
        results.append(rehearsal.run(task).result)

    assert results == [{"payment": "gift-7", "status": "paid", "cents": 500}] * 2
    assert world.bank.now() == {"gift-7": 500}


async def test_another_payment_with_the_same_key_is_refused(rehearsal, world):
    for amount in (5.0, 6.0):
        task = await idempotent_payment.kiq(idempotency_key="gift-7", user_id="ada", amount=amount)
        await rehearsal.advance(timedelta(minutes=1))

    assert (rehearsal.run(task).state, rehearsal.run(task).error["type"]) == ("failed", "EffectConflictError")
    assert world.bank.now() == {"gift-7": 500}
