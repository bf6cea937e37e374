"""Whatever worker dies at whatever moment, and however a step fails: all of an order, or nothing of it."""

from __future__ import annotations

import pytest

from carillon.testing.crashes import every_crash
from carillon.testing.sagas import check
from orders import scenarios
from orders.payments import Payments
from orders.tasks import refund_payment

pytestmark = [pytest.mark.long(seconds=200), pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (scenarios.payment, "completed"),
        (scenarios.payment_without_address, "completed"),
        (scenarios.single_payment, "completed"),
        (scenarios.deliveries, "partial"),
    ],
)
async def test_it_ends_the_same_wherever_its_worker_dies(make, state):
    undisturbed, crashed = await every_crash(make)

    assert undisturbed.end.state == state
    assert undisturbed.end.effects["wrong"] == []
    assert len(crashed) >= 3
    assert all(trial.died is not None for trial in crashed)
    assert {trial.died: trial.end for trial in crashed if trial.end != undisturbed.end} == {}


async def test_a_payment_leaves_all_or_nothing_however_its_steps_fail():
    checked = await check(scenarios.payment)

    assert {case.step for case in checked.cases} == {
        "orders.reserve_inventory", "orders.charge_payment", "orders.create_shipment",
    }  # fmt: skip
    assert checked.all["shipped"] == {"bell": 1}
    assert checked.violations == []


async def test_the_check_finds_money_that_is_not_given_back(monkeypatch):
    async def forget(order_id: str, user_id: str, cents: int, *, payments: Payments) -> None:
        """Do nothing."""

    monkeypatch.setattr(refund_payment, "original_func", forget)

    checked = await check(scenarios.payment)

    assert {case.step for case in checked.cases if case.violations} == {
        "orders.charge_payment", "orders.create_shipment",
    }  # fmt: skip
    assert {str(trial.end.effects["taken"]) for trial in checked.violations} == {"{'order_123': 9999}"}
