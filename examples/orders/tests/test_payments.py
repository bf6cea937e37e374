"""The bank that we play, in PostgreSQL and in memory, and payments between it and the books."""

from __future__ import annotations

import pytest

from carillon.errors import InvalidArgumentsError
from orders.amounts import cents_of
from orders.errors import ChangedOrderError, ClosedOrderError, PaymentDeclinedError
from orders.payments import Payments
from orders.remembered import RememberedStore


async def test_the_same_key_takes_money_once(bank):
    await bank.charge("17", "ada", 500)
    await bank.charge("17", "ada", 500)

    assert await bank.taken() == {"17": 500}


@pytest.mark.parametrize(("user", "cents"), [("ada", 501), ("bob", 500)])
async def test_the_same_key_for_another_payment_is_refused(bank, user, cents):
    await bank.charge("17", "ada", 500)

    with pytest.raises(ChangedOrderError, match="the payment 17 was there before"):
        await bank.charge("17", user, cents)


async def test_who_has_no_money_is_declined(bank):
    with pytest.raises(PaymentDeclinedError, match="nothing was charged"):
        await bank.charge("17", "broke-bob", 500)

    assert await bank.taken() == {}


async def test_money_goes_back_once_and_each_try_is_told_how_much(bank):
    await bank.charge("17", "ada", 500)

    assert [await bank.give_back("17"), await bank.give_back("17")] == [500, 500]
    assert await bank.taken() == {}


async def test_a_charge_that_comes_after_its_refund_is_refused(bank):
    assert await bank.give_back("17") == 0

    with pytest.raises(ClosedOrderError, match="the order 17 got its money back before"):
        await bank.charge("17", "ada", 500)


async def test_a_refund_books_what_the_bank_had_taken_before_the_books_were_written(bank):
    books = RememberedStore()
    await bank.charge("17", "ada", 500)

    await Payments(bank, books).give_back("17")

    assert books.now().booked == await bank.taken() == {}
    await books.book_charge("17", 500)
    assert books.now().booked == {}


@pytest.mark.parametrize(("amount", "cents"), [(99.99, 9999), (0.01, 1), (1e6, 100_000_000), (1.1, 110)])
def test_amounts_are_whole_cents(amount, cents):
    assert cents_of(amount) == cents


@pytest.mark.parametrize("amount", [0, -1, 0.001, 1_000_000.01, float("nan"), float("inf")])
def test_an_amount_that_cannot_be_is_refused(amount):
    with pytest.raises(InvalidArgumentsError, match=r"whole cents, from 0\.01 to 1,000,000\.00"):
        cents_of(amount)
