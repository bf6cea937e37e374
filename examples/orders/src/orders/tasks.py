"""What orders does in one step each, and the patterns that need no workflow. Each task: call the domain."""

from datetime import timedelta
from typing import Any

from carillon import Partial, Retry, Tasks
from carillon.policies import Answer, Batch, Breaker, Effect, Fallback, Policies
from orders.amounts import cents_of
from orders.errors import WrongDeliveryError
from orders.partners import Carrier, Directory, Profile, Quote
from orders.payments import Payments
from orders.warehouse import MOST_UNITS, Delivery, Warehouse

tasks = Tasks("orders")

#: A step waits for others, so it gives them some time; an order that takes minutes is a phone call.
STEP = Retry(attempts=3, base=timedelta(seconds=1), cap=timedelta(seconds=20))
#: A run that the breaker refuses waits until calls pass again. Attempts count together, whatever they failed with,
#: so it has many of both kinds; how often the carrier is really asked is for the breaker to say.
PATIENT = Retry(attempts=100, base=timedelta(seconds=1), cap=timedelta(minutes=1))

CARRIER = Breaker("orders.carrier", failures=3, pause=timedelta(seconds=30), timeout=timedelta(seconds=5))
USERS = Fallback("orders.users", returns=Profile, timeout=timedelta(seconds=2))
DELIVERIES = Batch("orders.deliveries", need=0.5, concurrency=5)
PAYMENT: Effect[dict[str, Any]] = Effect("orders.payment", returns=dict[str, Any])


@tasks.task(retry=STEP)
async def reserve_inventory(order_id: str, item: str, units: int, *, warehouse: Warehouse) -> None:
    """Hold units for an order.

    Safe to run twice: an order has one reservation, and stock is taken in the transaction that makes it.
    """
    await warehouse.reserve(order_id, item, units)


@tasks.task(retry=STEP)
async def release_inventory(order_id: str, item: str, units: int, *, warehouse: Warehouse) -> None:
    """Take the reservation of an order back.

    Safe to run twice: a reservation is released once, and one that comes later finds the order closed.
    """
    await warehouse.release(order_id, item, units)


@tasks.task(retry=STEP)
async def charge_payment(order_id: str, user_id: str, cents: int, *, payments: Payments) -> dict[str, str | int]:
    """Take the money of an order, and book it.

    Safe to run twice: the order's id is the bank's key, and an order has one booking of its charge.
    """
    return await payments.take(order_id, user_id, cents)


@tasks.task(retry=STEP)
async def refund_payment(order_id: str, user_id: str, cents: int, *, payments: Payments) -> None:  # noqa: ARG001 - as charged
    """Give the money of an order back, if it was taken, and book that.

    Safe to run twice: the bank gives a key's money back once, and an order has one booking of its refund.
    """
    await payments.give_back(order_id)


@tasks.task(retry=STEP)
async def create_shipment(order_id: str, user_id: str, *, warehouse: Warehouse, carrier: Carrier) -> None:
    """Send what is held for an order.

    Safe to run twice: an order has one shipment, made in the transaction that ends its reservation.
    """
    await carrier.check_address(user_id)
    await warehouse.ship(order_id)


@tasks.task(retry=STEP)
async def recall_shipment(order_id: str, user_id: str, *, warehouse: Warehouse) -> None:  # noqa: ARG001 - as shipped
    """Take the shipment of an order back.

    Safe to run twice: a shipment is recalled once, and one that comes later finds nothing to send.
    """
    await warehouse.recall(order_id)


@tasks.task(retry=PATIENT, timeout=timedelta(seconds=30))
async def call_external_api_with_circuit_breaker(order_id: str, *, policies: Policies, carrier: Carrier) -> Quote:
    """Ask the carrier what a parcel costs. While it does not answer, it is left alone, and the run waits.

    Safe to run twice: it only asks.
    """
    async with policies.breaker(CARRIER):
        return await carrier.quote(order_id)


@tasks.task(retry=STEP, timeout=timedelta(seconds=30))
async def fetch_user_data_with_fallback(user_id: str, *, policies: Policies, directory: Directory) -> Answer[Profile]:
    """Tell what is known of a user: from the directory, else from its copy, else what was good last.

    Safe to run twice: it only asks.
    """
    return await policies.fallback(USERS, key=user_id)(
        directory=lambda: directory.profile(user_id), copy=lambda: directory.copied(user_id)
    )


@tasks.task(retry=STEP, timeout=timedelta(minutes=10))
async def process_batch_with_partial_success(
    deliveries: list[Delivery], *, policies: Policies, warehouse: Warehouse
) -> dict[str, Any] | Partial[dict[str, Any]]:
    """Put deliveries into stock. Those that are wrong are told of, and the others are in stock all the same.

    Safe to run twice: a delivery is put into stock once, by the supplier's number of it.
    """

    async def put_away(delivery: Delivery) -> str:
        if not 1 <= delivery.units <= MOST_UNITS:
            message = f"the delivery {delivery.id} has {delivery.units:,} units; it has 1 to {MOST_UNITS:,}"
            raise WrongDeliveryError(message)
        await warehouse.receive(delivery)
        return delivery.id

    summary = await policies.batch(DELIVERIES, put_away, deliveries)
    return summary.ended()


@tasks.task(retry=STEP)
async def idempotent_payment(
    idempotency_key: str, user_id: str, amount: float, *, policies: Policies, payments: Payments
) -> dict[str, Any]:
    """Take a payment that has no order. The same key again gives back what came of the first, and takes nothing.

    Safe to run twice: what came of a key is kept, and the key is the bank's and the books' too, should a worker die
    before that.
    """
    return await policies.idempotent(PAYMENT, key=idempotency_key)(
        payments.take, idempotency_key, user_id, cents_of(amount)
    )
