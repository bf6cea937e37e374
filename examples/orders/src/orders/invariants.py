"""What has to hold whatever breaks, as a function over what is kept. Tests and the tour ask it; so can an operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept, at one moment: units by item, cents by order."""

    received: Mapping[str, int]
    in_stock: Mapping[str, int]
    held: Mapping[str, int]
    shipped: Mapping[str, int]
    #: What the orders have paid, less what they got back; orders with nothing left are not in it.
    booked: Mapping[str, int]
    #: Transactions whose postings do not sum to zero.
    unbalanced: Sequence[str]
    #: Orders that are shipped, and not paid for.
    unpaid: Sequence[str]


def violations(kept: Kept, taken: Mapping[str, int]) -> list[str]:
    """Each thing that does not hold, as a sentence; `taken` is what the bank has, by order."""
    found = [f"the stock of {item} is {units}" for item, units in kept.in_stock.items() if units < 0]
    for item in sorted({*kept.received, *kept.in_stock, *kept.held, *kept.shipped}):
        parts = [part.get(item, 0) for part in (kept.in_stock, kept.held, kept.shipped)]
        if sum(parts) != kept.received.get(item, 0):
            in_stock, held, shipped = parts
            told = f"{in_stock} in stock, {held} held and {shipped} shipped"
            found.append(f"of {item} there are {told}, but {kept.received.get(item, 0)} came in")
    found += [f"the transaction {name} does not sum to zero" for name in kept.unbalanced]
    found += [f"the order {order} is shipped, and not paid for" for order in kept.unpaid]
    found += [
        f"of the order {order} the bank has {taken.get(order, 0)} cents, and {kept.booked.get(order, 0)} are booked"
        for order in sorted({*taken, *kept.booked})
        if taken.get(order, 0) != kept.booked.get(order, 0)
    ]
    return found
