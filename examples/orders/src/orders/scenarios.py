"""Scenarios for `carillon saga check`, and for tests: each makes a world of its own, in memory, and starts one run.

`carillon saga check orders.scenarios:payment` lets each step of a payment fail in each way, and workers die at each
moment of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from carillon.testing.crashes import Scenario
from orders.invariants import violations
from orders.partners import Carrier, Directory, PlayedPartners
from orders.payments import Payments
from orders.remembered import RememberedBank, RememberedStore
from orders.tasks import idempotent_payment, process_batch_with_partial_success, tasks
from orders.warehouse import Delivery, Warehouse
from orders.workflows import payment_saga

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from taskiq import AsyncTaskiqTask

    from carillon import Task


@dataclass(frozen=True, slots=True)
class World:
    """All that orders needs, in memory."""

    store: RememberedStore = field(default_factory=RememberedStore)
    bank: RememberedBank = field(default_factory=RememberedBank)
    partners: PlayedPartners = field(default_factory=PlayedPartners)

    @property
    def resources(self) -> Mapping[type, object]:
        """What tasks need, of this world."""
        return {
            Warehouse: self.store,
            Payments: Payments(self.bank, self.store),
            Carrier: self.partners,
            Directory: self.partners,
        }

    def effects(self) -> dict[str, Any]:
        """What there is in it, and what of that should not be."""
        kept, taken = self.store.now(), self.bank.now()
        return {
            "in stock": kept.in_stock,
            "held": kept.held,
            "shipped": kept.shipped,
            "booked": kept.booked,
            "taken": taken,
            "wrong": violations(kept, taken),
        }


def payment(user_id: str = "ada") -> Scenario:
    """A payment of an order, with three bells in stock."""
    world = World(RememberedStore(Delivery(id="first", item="bell", units=3)))
    return Scenario(
        tasks=[tasks],
        start=lambda: _submitted(payment_saga, order_id="order_123", user_id=user_id, amount=99.99),
        effects=world.effects,
        resources=world.resources,
    )


def payment_without_address() -> Scenario:
    """A payment that is rolled back, because nobody knows where to ship it."""
    return payment("nowhere-man")


def single_payment() -> Scenario:
    """A payment with a key of its own."""
    world = World()
    return Scenario(
        tasks=[tasks],
        start=lambda: _submitted(idempotent_payment, idempotency_key="gift-7", user_id="ada", amount=5.0),
        effects=world.effects,
        resources=world.resources,
    )


def deliveries() -> Scenario:
    """Three deliveries, one of which is wrong."""
    world = World()
    units = {"a": 5, "b": 0, "c": 2}
    arrived = [Delivery(id=name, item="bell", units=number) for name, number in units.items()]
    return Scenario(
        tasks=[tasks],
        start=lambda: _submitted(process_batch_with_partial_success, deliveries=arrived),
        effects=world.effects,
        resources=world.resources,
    )


def _submitted(task: Task[..., Any], **arguments: Any) -> Awaitable[AsyncTaskiqTask[Any]]:
    """Submit a run; what is injected is not among the arguments."""
    return task.kiq(**arguments)
