"""Amounts of money: in the world with a decimal point, in here as whole cents."""

from decimal import Decimal

from carillon.errors import InvalidArgumentsError

#: A number of JSON holds so many cents exactly, and no order of this shop costs more.
MOST_CENTS = 1_000_000_00
CENTS = Decimal(100)


def cents_of(amount: float) -> int:
    """An amount such as 99.99 in cents; raises `InvalidArgumentsError` for less than a cent, a fraction or too much."""
    cents = Decimal(str(amount)) * CENTS
    if not cents.is_finite() or cents != cents.to_integral_value() or not 1 <= cents <= MOST_CENTS:
        message = f"an amount has whole cents, from 0.01 to {MOST_CENTS / 100:,.2f}, and is not {amount}"
        raise InvalidArgumentsError(message)
    return int(cents)
