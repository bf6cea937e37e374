"""What orders does in several steps: a payment that is whole, or not at all."""

from typing import Any

from carillon import Workflow
from carillon.errors import InvalidArgumentsError, StepFailedError
from orders.amounts import cents_of
from orders.tasks import (
    charge_payment,
    create_shipment,
    recall_shipment,
    refund_payment,
    release_inventory,
    reserve_inventory,
    tasks,
)
from orders.warehouse import MOST_UNITS


@tasks.workflow(default=True)
async def payment_saga(
    order_id: str, user_id: str, amount: float, item: str = "bell", units: int = 1, *, flow: Workflow
) -> dict[str, Any]:
    """Reserve, charge and ship an order; where one of these fails, those before it are taken back in reverse order.

    The result's `status` is `completed`, or `rolled_back` with the `reason` and the `compensations` that were made.
    An order that was rolled back is closed: try again with another id.

    Safe to run twice: each step is by the order's id, so the same order again does nothing more.
    """
    cents = cents_of(amount)
    if not 1 <= units <= MOST_UNITS:
        message = f"an order has 1 to {MOST_UNITS:,} units, and not {units:,}"
        raise InvalidArgumentsError(message)
    try:
        async with flow.saga() as saga:
            await saga.step(reserve_inventory, order_id, item, units, undo=release_inventory)
            await saga.step(charge_payment, order_id, user_id, cents, undo=refund_payment)
            await saga.step(create_shipment, order_id, user_id, undo=recall_shipment)
    except StepFailedError as error:
        compensations = [name.partition(".")[2] for name in saga.compensations]
        reason = str(error.error.get("message", error.kind))
        return {"status": "rolled_back", "order": order_id, "reason": reason, "compensations": compensations}
    return {"status": "completed", "order": order_id, "cents": cents}
