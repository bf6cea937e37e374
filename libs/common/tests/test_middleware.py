"""The four middlewares: their order, what each kind of error leads to, and the metrics after real runs."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from shop import Shop, shop_service

from carillon import NEVER, Retry, Tasks, middleware
from carillon.errors import (
    Cancel,
    ConfigurationError,
    InvalidArgumentsError,
    PermanentError,
    Snooze,
    TransientError,
    UnknownTaskError,
)
from carillon.ids import new_id
from carillon.ledger.records import Delivery, NewRun, State
from carillon.middleware.retry import MOST_DELAY, verdict_of
from carillon.run import Run
from carillon.telemetry.metrics import Metrics
from carillon.testing import eventually, running
from carillon.worker.execution import Execution

tasks = Tasks("shop")


@tasks.task(retry=Retry(attempts=3, base=timedelta(seconds=1), cap=timedelta(seconds=2), per_second=math.inf))
async def work() -> None:
    """Work. Safe to run twice: it does nothing."""


def execution(attempt: int = 1, uncounted: int = 0, task=work) -> Execution:
    delivery = Delivery(id=new_id(), attempt=attempt, task="shop.work", args={}, labels={}, uncounted=uncounted)
    return Execution(delivery, task, Run(id=delivery.id, task="shop.work", domain="shop"))


def test_the_stack_of_the_platform_is_in_order_with_a_service_s_own_inside():
    own = middleware.TrackingMiddleware()

    stack = middleware.stack(Metrics(), [own])
    middleware.check(stack)

    assert [type(each).__name__ for each in stack[:4]] == [
        "RetryMiddleware",
        "MetricsMiddleware",
        "TracingMiddleware",
        "TrackingMiddleware",
    ]
    assert stack[4] is own


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ([], "found none"),
        ([1, 0, 2, 3], "found MetricsMiddleware, RetryMiddleware, TracingMiddleware, TrackingMiddleware"),
        ([0, 1, 2], "found RetryMiddleware, MetricsMiddleware, TracingMiddleware"),
        ([0, 1, 3, 2], "found RetryMiddleware, MetricsMiddleware, TrackingMiddleware, TracingMiddleware"),
    ],
)
def test_another_order_is_refused_and_the_order_found_is_named(order, found):
    stack = middleware.stack(Metrics())

    with pytest.raises(ConfigurationError) as refused:
        middleware.check([stack[index] for index in order])

    assert found in str(refused.value)
    assert "must be RetryMiddleware, MetricsMiddleware, TracingMiddleware, TrackingMiddleware" in str(refused.value)


@pytest.mark.parametrize(
    ("error", "state", "outcome", "counted"),
    [
        (TransientError("later"), State.RETRYING, "retried", True),
        (ValueError("a bug"), State.RETRYING, "retried", True),
        (TimeoutError("slow"), State.RETRYING, "retried", True),
        (SystemExit(1), State.RETRYING, "retried", True),
        (PermanentError("never"), State.FAILED, "failed", True),
        (InvalidArgumentsError("unfit"), State.FAILED, "failed", True),
        (UnknownTaskError("who"), State.FAILED, "failed", True),
        (Snooze(timedelta(minutes=1)), State.QUEUED, "snoozed", False),
        (Cancel("unwanted"), State.CANCELLED, "cancelled", True),
    ],
)
def test_what_an_error_leads_to(error, state, outcome, counted):
    verdict = verdict_of(execution(), error)

    assert (verdict.state, verdict.outcome, verdict.counted) == (state, outcome, counted)


@pytest.mark.parametrize("error", [TransientError("later"), ValueError("a bug")])
def test_the_last_counted_attempt_fails_and_uncounted_ones_do_not_matter(error):
    last, snoozed = execution(attempt=3), execution(attempt=9, uncounted=7)

    assert verdict_of(last, error).state is State.FAILED
    assert verdict_of(snoozed, error).state is State.RETRYING


def test_a_snooze_on_the_last_attempt_is_still_a_snooze():
    assert verdict_of(execution(attempt=3), Snooze(timedelta(0))).outcome == "snoozed"


def test_the_other_side_may_name_the_delay_but_not_without_bound():
    named = verdict_of(execution(), TransientError("busy", retry_after=timedelta(seconds=90)))
    absurd = verdict_of(execution(), TransientError("busy", retry_after=timedelta(days=999)))
    snooze = verdict_of(execution(), Snooze(timedelta(days=999)))
    exhausted = verdict_of(execution(attempt=3), TransientError("busy", retry_after=timedelta(seconds=1)))

    assert named.delay == timedelta(seconds=90)
    assert absurd.delay == snooze.delay == MOST_DELAY == timedelta(days=30)
    assert exhausted.state is State.FAILED


def test_a_snooze_takes_seconds_too():
    assert Snooze(30).delay == timedelta(seconds=30)


@pytest.mark.parametrize("delay", ["soon", None, float("nan"), 10**400, -1, timedelta(seconds=-1)])
def test_a_snooze_that_makes_no_sense_is_a_mistake_of_the_code(delay):
    with pytest.raises(InvalidArgumentsError, match="nooze"):
        raise Snooze(delay)


class BusyError(Exception):
    """Of a client library that knows nothing of Carillon."""

    def __init__(self, retry_after: object) -> None:
        self.retry_after = retry_after


class MoodyError(Exception):
    @property
    def retry_after(self) -> float:
        raise RuntimeError("ask somebody else")


@pytest.mark.parametrize(
    ("named", "delay"),
    [
        (90, timedelta(seconds=90)),
        (90.5, timedelta(seconds=90.5)),
        (timedelta(seconds=90), timedelta(seconds=90)),
        (1e300, MOST_DELAY),
    ],
)
def test_any_error_may_name_the_delay(named, delay):
    assert verdict_of(execution(), BusyError(named)).delay == delay


@pytest.mark.parametrize(
    "error",
    [
        BusyError("soon"),
        BusyError(-1),
        BusyError(-1e300),
        BusyError(10**400),
        BusyError(float("nan")),
        BusyError(None),
        MoodyError(),
    ],
)
def test_a_delay_that_makes_no_sense_is_the_policy_s(error):
    verdict = verdict_of(execution(), error)

    assert verdict.outcome == "retried"
    assert verdict.delay <= timedelta(seconds=1)


@tasks.task(retry=Retry(attempts=2, rules={ValueError: NEVER, ConnectionError: Retry(attempts=4)}))
async def ruled() -> None:
    """Work. Safe to run twice: it does nothing."""


@pytest.mark.parametrize(
    ("error", "attempt", "outcome"),
    [
        (ValueError("a bug"), 1, "failed"),
        (ConnectionResetError("gone"), 3, "retried"),
        (ConnectionResetError("gone"), 4, "failed"),
        (KeyError("a bug"), 1, "retried"),
        (KeyError("a bug"), 2, "failed"),
    ],
)
def test_an_error_with_a_rule_follows_it(error, attempt, outcome):
    assert verdict_of(execution(attempt, task=ruled), error).outcome == outcome


def test_a_task_that_nobody_knows_is_not_tried_again():
    assert verdict_of(execution(task=None), ValueError("a bug")).state is State.FAILED


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (
            sample.name,
            *(sample.labels[name] for name in ("task_name", "status", "le") if name in sample.labels),
        ): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("taskiq_") and not sample.name.endswith("_created")
    }


def new_run(task: str, args: str = "{}") -> NewRun:
    return NewRun(id=new_id(), domain="shop", task=f"shop.{task}", args=args)


async def test_the_metrics_after_real_runs_have_the_names_and_labels_that_were_promised(platform):
    shop = Shop()
    service = shop_service(platform.settings, shop)
    runs = [
        new_run("add", '{"a": 1}'),
        new_run("stumble", '{"times": 1}'),
        new_run("refuse", '{"how": "never"}'),
        new_run("refuse", '{"how": "cancel"}'),
        *(new_run(f"made_up_{number}") for number in range(5)),
    ]

    async def all_ended():
        return all([(await platform.history.run(run.id))["finished_at"] for run in runs])

    async with running(service, platform):
        for run in runs:
            await platform.submit(run)
        held = await platform.submit(new_run("wait_at_the_gate", '{"name": "x"}'))
        await shop.entered.wait()
        await eventually(all_ended)
        during = samples(service.metrics)
        shop.gate.set()
        runs.append(held)
        await eventually(all_ended)
    after = samples(service.metrics)

    totals = {key[1:]: value for key, value in after.items() if key[0] == "taskiq_tasks_total"}
    assert totals == {
        ("shop.add", "success"): 1,
        ("shop.stumble", "retried"): 1,
        ("shop.stumble", "success"): 1,
        ("shop.refuse", "failed"): 1,
        ("shop.refuse", "cancelled"): 1,
        ("shop.wait_at_the_gate", "success"): 1,
        ("unknown", "failed"): 5,
    }
    assert after["taskiq_task_duration_seconds_count", "shop.stumble"] == 2
    assert during["taskiq_tasks_active", "shop.wait_at_the_gate"] == 1
    assert {value for key, value in after.items() if key[0] == "taskiq_tasks_active"} == {0}
    assert not [key for key in after if "made_up" in str(key)]


async def test_the_metrics_page_names_the_labels(platform):
    service = shop_service(platform.settings, Shop())

    async with running(service, platform):
        run = new_run("add", '{"a": 1}')
        await platform.submit(run)

        async def counted():
            return b"taskiq_tasks_total{" in generate_latest(service.metrics.registry)

        await eventually(counted)

    text = generate_latest(service.metrics.registry).decode()
    assert 'taskiq_tasks_total{status="success",task_name="shop.add"} 1.0' in text
    assert 'taskiq_task_duration_seconds_bucket{le="0.005",task_name="shop.add"}' in text
    assert 'taskiq_tasks_active{task_name="shop.add"}' in text
