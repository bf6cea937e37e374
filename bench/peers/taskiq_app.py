"""Taskiq as it is measured here: taskiq-aio-pika's broker, taskiq-redis's results, one no-op task.

In its favour: a classic durable queue, the prefetch of the others, orjson instead of pickle for messages and results,
and uvloop. It acknowledges by its default, when the result is saved.
"""

from __future__ import annotations

import os
import time

from taskiq.serializers import ORJSONSerializer
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType
from taskiq_redis import RedisAsyncResultBackend

QUEUE = os.environ["BENCH_QUEUE"]
PREFETCH = int(os.environ["BENCH_PREFETCH"])

results = RedisAsyncResultBackend(
    os.environ["BENCH_RESULTS_URL"], prefix_str=QUEUE, serializer=ORJSONSerializer(), result_ex_time=600
)
broker = (
    AioPikaBroker(
        os.environ["BENCH_BROKER_URL"],
        qos=PREFETCH,
        task_queues=[Queue(name=QUEUE, type=QueueType.CLASSIC, durable=True)],
        exchange_name=f"{QUEUE}.exchange",
    )
    .with_result_backend(results)
    .with_serializer(ORJSONSerializer())
)


@broker.task(task_name="bench.noop")
async def noop(number: int) -> float:
    """Say when it ran, in seconds since 1970."""
    del number
    return time.time()
