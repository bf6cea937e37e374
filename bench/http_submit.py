"""What it costs to submit over HTTP: one run in a request, and a thousand."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import BenchError
from bench.gateway import gateway
from bench.report import Figure
from bench.submit import messages_in

if TYPE_CHECKING:
    from bench.gateway import Asked, Gateway
    from bench.group import Bench
    from bench.ours import Carillon

ONE = {"task": "bench.noop", "args": {"number": 1}}
#: How long accepted runs may take to be in the queue.
ARRIVAL_SECONDS = 10.0
BATCH = {"tasks": [{"task": "bench.noop", "args": {"number": number}} for number in range(1_000)]}


class Load(NamedTuple):
    """One kind of request, and how many of them; never more runs than one window, so that each is also published."""

    name: str
    path: str
    body: dict[str, object]
    runs: int
    connections: int
    warm_up: int
    count: int


LOADS = (
    Load("one run, 8 connections", "/api/v1/tasks", ONE, 1, 8, 30, 3_000),
    Load("one run, 64 connections", "/api/v1/tasks", ONE, 1, 64, 10, 8_000),
    Load("1,000 runs, 1 connection", "/api/v1/tasks/batch", BATCH, 1_000, 1, 1, 9),
)


async def measured(bench: Bench) -> list[Figure]:
    """Rounds of the three loads, against one gateway; medians of the rounds."""
    ours = await bench.ours("rabbitmq")
    asked: dict[str, list[Asked]] = {load.name: [] for load in LOADS}
    async with gateway(ours) as serving:
        for number in range(bench.rounds):
            bench.say(f"round {number + 1}")
            for load in LOADS:
                asked[load.name].append(one := await _asked(ours, serving, load))
                bench.say(_line(load, one))
    few, many, batches = ([one.answered for one in asked[load.name]] for load in LOADS)
    per_s = median(one.count / one.seconds for one in many)
    bulk = median(one.count * 1_000 / one.seconds for one in batches)
    return [
        Figure("http_submit_p50_ms", round(median(one.p50_ms for one in few), 2), "ms", "lower"),
        Figure("http_submit_per_s", round(per_s), "/s", "higher"),
        Figure("bulk_submit_per_s", round(bulk), "/s", "higher"),
    ]


async def _asked(ours: Carillon, serving: Gateway, load: Load) -> Asked:
    """One measurement, proven by the ledger and the queue."""
    asked = await serving.ask(
        load.path, load.body, connections=load.connections, warm_up=load.warm_up, count=load.count
    )
    expected = load.runs * (load.count + load.warm_up * load.connections)
    queued, delivered = await ours.queued(), 0
    # The answer to a batch does not wait for the broker.
    deadline = time.monotonic() + ARRIVAL_SECONDS
    while delivered < expected and time.monotonic() < deadline:
        delivered += await messages_in(ours.rabbit_url, ours.queue)
    await ours.forget()
    if (queued, delivered) != (expected, expected):
        message = f"{expected} runs were asked for; the ledger has {queued} of them queued, the queue {delivered}"
        raise BenchError(message)
    return asked


def _line(load: Load, asked: Asked) -> str:
    answered = asked.answered
    rate = answered.count * load.runs / answered.seconds
    shares = f"gateway {asked.gateway_share:.0%} of a core, client {asked.client_share:.0%}"
    return f"{load.name:<28} {rate:>8.0f} runs/s  p50 {answered.p50_ms:.1f} ms, p99 {answered.p99_ms:.1f} ms; {shares}"
