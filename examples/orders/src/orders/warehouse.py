"""The warehouse: what has come in is in stock, held for an order, or shipped. It is kept by a store, or its twin."""

from typing import Protocol

from pydantic import BaseModel

from orders.errors import ChangedOrderError, ClosedOrderError, OutOfStockError

#: More than this is a slip of the pen.
MOST_UNITS = 1_000_000


class Delivery(BaseModel):
    """Goods that came in, as a supplier says."""

    #: The supplier's number of it.
    id: str
    item: str
    units: int


class Warehouse(Protocol):
    """Where units lie. Each call is one transaction, and the same call twice changes nothing more.

    A reservation is `reserved`, then `shipped`; or `recalled`, which keeps it from being shipped, and `released`. It
    never goes back, so that what comes late finds the order closed.
    """

    async def receive(self, delivery: Delivery) -> None:
        """Put a delivery into stock; raises `ChangedOrderError` for another one of the same id."""

    async def reserve(self, order_id: str, item: str, units: int) -> None:
        """Hold units for an order; raises `OutOfStockError`, `ClosedOrderError` or `ChangedOrderError`."""

    async def release(self, order_id: str, item: str, units: int) -> None:
        """Put what is held back into stock, and let nothing be held for this order any more, if it comes later."""

    async def ship(self, order_id: str) -> None:
        """Send what is held; raises `ClosedOrderError` where nothing is, or where it was not paid for."""

    async def recall(self, order_id: str) -> None:
        """Take the shipment back, and let it not be shipped any more, if that comes later."""


def out_of_stock(item: str, units: int) -> OutOfStockError:
    """The refusal to reserve."""
    return OutOfStockError(f"there are not {units:,} units of {item!r} in stock; nothing was reserved")


def closed(order_id: str, why: str) -> ClosedOrderError:
    """The refusal of what comes too late or too soon."""
    return ClosedOrderError(f"the order {order_id} {why}; give a new order a new id")


def changed(what: str, name: str) -> ChangedOrderError:
    """The refusal of what was there before, and was different."""
    return ChangedOrderError(f"the {what} {name} was there before with other contents; give a new one a new id")
