"""Payments: the bank moves the money, and the books say so, once for each order whatever breaks in between."""

from collections.abc import Mapping
from typing import Protocol

from orders.errors import PaymentDeclinedError


class Bank(Protocol):
    """Whoever moves the money. The key is ours: the same key is the same payment, also when it comes again."""

    async def charge(self, key: str, user_id: str, cents: int) -> None:
        """Take money; raises `PaymentDeclinedError`, and `ClosedOrderError` for a key that was given back."""

    async def give_back(self, key: str) -> int:
        """Return the cents that were taken, 0 for none; that key takes nothing any more, if it comes later."""

    async def taken(self) -> Mapping[str, int]:
        """The cents that each key has taken and not given back."""


class Books(Protocol):
    """The ledger of the money, double entry: what a transaction adds to one account it takes from another."""

    async def book_charge(self, order_id: str, cents: int) -> None:
        """Book that an order was paid; raises `ChangedOrderError` where it was booked with another amount."""

    async def book_refund(self, order_id: str, cents: int) -> None:
        """Book that its money was given back, and before that, if nobody did, that it was paid."""


class Payments:
    """Takes money and books it. Whatever worker dies in between, the next try books what the bank has."""

    def __init__(self, bank: Bank, books: Books) -> None:
        self._bank = bank
        self._books = books

    async def take(self, order_id: str, user_id: str, cents: int) -> dict[str, str | int]:
        """Take the money of an order once; raises what `Bank.charge` and `Books.book_charge` do."""
        await self._bank.charge(order_id, user_id, cents)
        await self._books.book_charge(order_id, cents)
        return {"payment": order_id, "status": "paid", "cents": cents}

    async def give_back(self, order_id: str) -> None:
        """Give the money of an order back, if any was taken."""
        if cents := await self._bank.give_back(order_id):
            await self._books.book_refund(order_id, cents)


def check_funds(user_id: str) -> None:
    """Refuse a user of the bank that we play who has no money: everybody whose name begins with `broke`."""
    if user_id.startswith("broke"):
        message = f"the bank declines {user_id}; nothing was charged"
        raise PaymentDeclinedError(message)
