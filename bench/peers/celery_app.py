"""Celery as it is measured here: one no-op task, a durable queue, settings chosen in Celery's favour.

In its favour: the prefetch is as large as Carillon's, deliveries are acknowledged early (Celery's default), nothing is
sent as an event, and remote control, gossip, mingle and heartbeats are off.
"""

from __future__ import annotations

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER_URL"], backend=os.environ["BENCH_RESULTS_URL"])
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    result_backend_transport_options={"global_keyprefix": os.environ["BENCH_QUEUE"] + ":"},
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
)


@app.task(name="bench.noop")
def noop(number: int) -> int:
    """Give the argument back, and do nothing else."""
    return number
