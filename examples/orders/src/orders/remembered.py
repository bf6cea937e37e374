"""The twins of the store and the bank: in memory, for rehearsals, scenarios and the tour."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from orders.invariants import Kept
from orders.payments import check_funds
from orders.warehouse import changed, closed, out_of_stock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orders.warehouse import Delivery


class RememberedStore:
    """A `Warehouse` and `Books`, of one process. Nothing awaits in here, so each call is a transaction."""

    def __init__(self, *there: Delivery) -> None:
        self._deliveries = {delivery.id: (delivery.item, delivery.units) for delivery in there}
        self._stock = Counter(_sum(self._deliveries.values()))
        #: By order: item, units and state.
        self._reservations: dict[str, tuple[str, int, str]] = {}
        #: By order and kind: what it adds to each account.
        self._transactions: dict[tuple[str, str], Mapping[str, int]] = {}

    async def receive(self, delivery: Delivery) -> None:
        """See `Warehouse.receive`."""
        contents = (delivery.item, delivery.units)
        if delivery.id not in self._deliveries:
            self._deliveries[delivery.id] = contents
            self._stock[delivery.item] += delivery.units
        elif self._deliveries[delivery.id] != contents:
            raise changed("delivery", delivery.id)

    async def reserve(self, order_id: str, item: str, units: int) -> None:
        """See `Warehouse.reserve`."""
        if order_id in self._reservations:
            *contents, state = self._reservations[order_id]
            if contents != [item, units]:
                raise changed("order", order_id)
            if state not in {"reserved", "shipped"}:
                raise closed(order_id, "was taken back before")
            return
        if self._stock[item] < units:
            raise out_of_stock(item, units)
        self._stock[item] -= units
        self._reservations[order_id] = (item, units, "reserved")

    async def release(self, order_id: str, item: str, units: int) -> None:
        """See `Warehouse.release`."""
        item, units, state = self._reservations.setdefault(order_id, (item, units, "released"))
        if state == "shipped":
            raise closed(order_id, "is shipped, and has to be recalled before it is released")
        if state != "released":
            self._stock[item] += units
            self._reservations[order_id] = (item, units, "released")

    async def ship(self, order_id: str) -> None:
        """See `Warehouse.ship`."""
        item, units, state = self._reservations.get(order_id, ("", 0, "none"))
        if state == "shipped":
            return
        if state != "reserved":
            raise closed(order_id, "holds nothing that could be shipped")
        if (order_id, "charge") not in self._transactions:
            raise closed(order_id, "is not paid for")
        self._reservations[order_id] = (item, units, "shipped")

    async def recall(self, order_id: str) -> None:
        """See `Warehouse.recall`."""
        item, units, state = self._reservations.get(order_id, ("", 0, "none"))
        if state in {"reserved", "shipped"}:
            self._reservations[order_id] = (item, units, "recalled")

    async def book_charge(self, order_id: str, cents: int) -> None:
        """See `Books.book_charge`."""
        self._book(order_id, "charge", cents)

    async def book_refund(self, order_id: str, cents: int) -> None:
        """See `Books.book_refund`."""
        self._book(order_id, "charge", cents)
        self._book(order_id, "refund", -cents)

    async def kept(self) -> Kept:
        """All that is kept."""
        return self.now()

    def now(self) -> Kept:
        """All that is kept, for who cannot await."""
        booked: Counter[str] = Counter()
        for (order, _), added in self._transactions.items():
            booked[order] += added["bank"]
        shipped = [order for order, (_, _, state) in self._reservations.items() if state == "shipped"]
        return Kept(
            received=_sum(self._deliveries.values()),
            in_stock=dict(self._stock),
            held=self._reserved({"reserved", "recalled"}),
            shipped=self._reserved({"shipped"}),
            booked={order: cents for order, cents in booked.items() if cents},
            unbalanced=[" ".join(name) for name, added in self._transactions.items() if sum(added.values())],
            unpaid=[order for order in shipped if booked[order] <= 0],
        )

    def _book(self, order_id: str, kind: str, cents: int) -> None:
        added = {"bank": cents, "sales": -cents}
        if self._transactions.setdefault((order_id, kind), added) != added:
            raise changed(kind, order_id)

    def _reserved(self, states: set[str]) -> dict[str, int]:
        return _sum((item, units) for item, units, state in self._reservations.values() if state in states)


class RememberedBank:
    """A `Bank`, of one process."""

    def __init__(self) -> None:
        #: By key: user, cents and state.
        self._payments: dict[str, tuple[str, int, str]] = {}

    async def charge(self, key: str, user_id: str, cents: int) -> None:
        """See `Bank.charge`."""
        check_funds(user_id)
        *contents, state = self._payments.setdefault(key, (user_id, cents, "taken"))
        if state != "taken":
            raise closed(key, "got its money back before")
        if contents != [user_id, cents]:
            raise changed("payment", key)

    async def give_back(self, key: str) -> int:
        """See `Bank.give_back`."""
        user, cents, state = self._payments.setdefault(key, ("", 0, "void"))
        if state == "taken":
            self._payments[key] = (user, cents, "returned")
        return cents

    async def taken(self) -> dict[str, int]:
        """See `Bank.taken`."""
        return self.now()

    def now(self) -> dict[str, int]:
        """What is taken, for who cannot await."""
        return {key: cents for key, (_, cents, state) in self._payments.items() if state == "taken"}


def _sum(units: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for item, number in units:
        total[item] += number
    return dict(total)
