"""The warehouse and the books, in PostgreSQL and in memory: the same suite for both."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from orders.errors import ChangedOrderError, ClosedOrderError, OutOfStockError
from orders.invariants import Kept, violations
from orders.models import shipments, stock
from orders.store import Store
from orders.warehouse import Delivery

THREE = Delivery(id="first", item="bell", units=3)


@pytest.fixture
async def stocked(store):
    await store.receive(THREE)
    return store


async def test_a_delivery_is_put_into_stock_once_and_another_one_of_its_id_is_refused(stocked):
    await stocked.receive(THREE)
    await stocked.receive(Delivery(id="second", item="bell", units=2))

    with pytest.raises(ChangedOrderError, match="the delivery first was there before"):
        await stocked.receive(Delivery(id="first", item="bell", units=4))

    assert (await stocked.kept()).in_stock == {"bell": 5}


async def test_reserving_twice_holds_units_once(stocked):
    await stocked.reserve("17", "bell", 2)
    await stocked.reserve("17", "bell", 2)

    kept = await stocked.kept()
    assert (kept.in_stock, kept.held) == ({"bell": 1}, {"bell": 2})


async def test_the_same_order_with_other_contents_is_refused(stocked):
    await stocked.reserve("17", "bell", 2)

    with pytest.raises(ChangedOrderError, match="the order 17 was there before"):
        await stocked.reserve("17", "bell", 1)


@pytest.mark.parametrize(("item", "units"), [("bell", 4), ("gong", 1)])
async def test_what_is_not_there_is_not_reserved_and_leaves_nothing(stocked, item, units):
    before = await stocked.kept()

    with pytest.raises(OutOfStockError, match="nothing was reserved"):
        await stocked.reserve("17", item, units)

    assert await stocked.kept() == before


async def test_releasing_twice_puts_units_back_once(stocked):
    await stocked.reserve("17", "bell", 2)

    await stocked.release("17", "bell", 2)
    await stocked.release("17", "bell", 2)

    kept = await stocked.kept()
    assert (kept.in_stock, kept.held) == ({"bell": 3}, {})


async def test_a_reservation_that_comes_after_its_release_is_refused(stocked):
    await stocked.release("17", "bell", 2)

    with pytest.raises(ClosedOrderError, match="the order 17 was taken back before"):
        await stocked.reserve("17", "bell", 2)

    assert (await stocked.kept()).in_stock == {"bell": 3}


async def test_an_order_that_is_paid_is_shipped_once(stocked):
    await stocked.reserve("17", "bell", 2)
    await stocked.book_charge("17", 500)

    await stocked.ship("17")
    await stocked.ship("17")
    await stocked.reserve("17", "bell", 2)

    kept = await stocked.kept()
    assert (kept.in_stock, kept.held, kept.shipped) == ({"bell": 1}, {}, {"bell": 2})
    assert violations(kept, {"17": 500}) == []


async def test_what_is_not_paid_for_is_not_shipped_and_stays_held(stocked):
    await stocked.reserve("17", "bell", 2)

    with pytest.raises(ClosedOrderError, match="the order 17 is not paid for"):
        await stocked.ship("17")

    assert (await stocked.kept()).held == {"bell": 2}


async def test_what_is_not_held_is_not_shipped(stocked):
    with pytest.raises(ClosedOrderError, match="holds nothing that could be shipped"):
        await stocked.ship("17")


async def test_what_is_recalled_is_held_again_and_cannot_be_shipped_any_more(stocked):
    await stocked.reserve("17", "bell", 2)
    await stocked.book_charge("17", 500)
    await stocked.ship("17")

    await stocked.recall("17")
    await stocked.recall("17")
    with pytest.raises(ClosedOrderError, match="holds nothing"):
        await stocked.ship("17")

    kept = await stocked.kept()
    assert (kept.held, kept.shipped) == ({"bell": 2}, {})


async def test_a_shipment_that_comes_after_its_recall_is_refused(stocked):
    await stocked.reserve("17", "bell", 2)
    await stocked.book_charge("17", 500)
    await stocked.recall("17")

    with pytest.raises(ClosedOrderError, match="holds nothing"):
        await stocked.ship("17")


async def test_recalling_what_nobody_ordered_does_nothing(stocked):
    before = await stocked.kept()

    await stocked.recall("17")

    assert await stocked.kept() == before


async def test_what_is_shipped_is_not_released(stocked):
    await stocked.reserve("17", "bell", 2)
    await stocked.book_charge("17", 500)
    await stocked.ship("17")

    with pytest.raises(ClosedOrderError, match="has to be recalled before it is released"):
        await stocked.release("17", "bell", 2)


async def test_money_is_booked_once_and_another_amount_is_refused(store):
    await store.book_charge("17", 500)
    await store.book_charge("17", 500)

    with pytest.raises(ChangedOrderError, match="the charge 17 was there before"):
        await store.book_charge("17", 501)

    assert (await store.kept()).booked == {"17": 500}


async def test_a_refund_books_the_charge_that_nobody_booked_and_leaves_nothing(store):
    await store.book_refund("17", 500)
    await store.book_refund("17", 500)
    await store.book_charge("17", 500)

    kept = await store.kept()
    assert (kept.booked, kept.unbalanced) == ({}, [])


async def test_fifty_orders_at_once_get_what_there_is_and_no_more(stocked):
    orders = [stocked.reserve(str(n), "bell", 1) for n in range(50)]

    ended = await asyncio.gather(*orders, return_exceptions=True)

    assert sum(isinstance(one, OutOfStockError) for one in ended) == 47
    kept = await stocked.kept()
    assert (kept.in_stock, kept.held) == ({"bell": 0}, {"bell": 3})


async def test_one_order_many_times_at_once_is_one_reservation(stocked):
    await asyncio.gather(*(stocked.reserve("17", "bell", 1) for _ in range(20)))

    assert (await stocked.kept()).held == {"bell": 1}


async def test_the_database_refuses_books_that_do_not_sum_to_zero(engine):
    await Store(engine).book_charge("17", 500)

    with pytest.raises(IntegrityError, match="the charge of 17 does not sum to zero: it is off by 1 cents"):
        async with engine.begin() as connection:
            await connection.execute(text("update orders.postings set cents = cents + 1 where account = 'bank'"))


async def test_the_database_refuses_a_stock_below_nothing_and_a_shipment_that_nobody_paid(engine):
    with pytest.raises(IntegrityError, match="ck_stock_units"):
        async with engine.begin() as connection:
            await connection.execute(insert(stock).values(item="bell", units=-1))
    with pytest.raises(IntegrityError, match="fk_shipments_paid"):
        async with engine.begin() as connection:
            await connection.execute(insert(shipments).values(order_id="17"))


def test_each_thing_that_does_not_hold_is_told():
    kept = Kept(
        received={"bell": 5},
        in_stock={"bell": 5, "gong": -1},
        held={"bell": 1},
        shipped={"gong": 1},
        booked={"17": 500},
        unbalanced=["17 charge"],
        unpaid=["18"],
    )

    assert violations(kept, {"17": 499}) == [
        "the stock of gong is -1",
        "of bell there are 5 in stock, 1 held and 0 shipped, but 5 came in",
        "the transaction 17 charge does not sum to zero",
        "the order 18 is shipped, and not paid for",
        "of the order 17 the bank has 499 cents, and 500 are booked",
    ]


async def test_an_order_whose_money_went_back_and_that_is_shipped_all_the_same_is_told(stocked):
    await stocked.reserve("17", "bell", 1)
    await stocked.book_charge("17", 500)
    await stocked.ship("17")
    await stocked.book_refund("17", 500)

    assert (await stocked.kept()).unpaid == ["17"]
