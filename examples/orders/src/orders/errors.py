"""What may be wrong with an order. None of it is mended by trying again.

```
carillon.errors.PermanentError
├── OutOfStockError        there are fewer units than the order wants
├── PaymentDeclinedError   the bank does not take the money
├── NoAddressError         the carrier does not know where to
├── ClosedOrderError       the order was taken back before, or was never begun
├── WrongDeliveryError     a delivery that cannot be
└── ChangedOrderError      the same order, payment or delivery was there before, with other contents
```
"""

from carillon.errors import PermanentError


class OutOfStockError(PermanentError):
    """There are fewer units than the order wants; nothing was reserved."""


class PaymentDeclinedError(PermanentError):
    """The bank does not take the money; nothing was charged."""


class NoAddressError(PermanentError):
    """The carrier does not know where to; nothing was shipped."""


class ClosedOrderError(PermanentError):
    """What was asked comes after the order was taken back, or before it was begun; give a new order a new id."""


class WrongDeliveryError(PermanentError):
    """A delivery has a number of units that cannot be; nothing was put into stock."""


class ChangedOrderError(PermanentError):
    """The id was used before with other contents; give what is new a new id."""
