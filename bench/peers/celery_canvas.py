"""Celery's canvas as it is measured here: `python celery_canvas.py chain|fan_out|alone N`, over Redis alone.

The settings are those of `celery_app`, whose broker is Redis here. For `chain` and `fan_out`, N is the number of steps,
and their ids are written to standard output as one JSON list; for `alone`, it is how many chains are run.
"""

from __future__ import annotations

import json
import os
import sys
import time

from celery import chain, chord
from celery.result import AsyncResult
from celery_app import app

# Each key of the broker carries the name of this run, as those of the results do.
app.conf.broker_transport_options = {"global_keyprefix": os.environ["BENCH_QUEUE"] + ":"}
STEPS = 10
WARM_UP = 3
#: How long one chain of `alone` may take, in seconds.
PATIENCE_SECONDS = 10.0


@app.task(name="bench.add")
def add(value: dict[str, int]) -> dict[str, int]:
    """Count one further."""
    return {"number": value["number"] + 1}


@app.task(name="bench.gather")
def gather(values: list[dict[str, int]]) -> int:
    """Add up what the steps returned."""
    return sum(value["number"] for value in values)


def begin_chain(number: int) -> AsyncResult:
    """Send ten steps, each with the result of the one before; gives back the last."""
    return chain(add.s({"number": number}), *(add.s() for _ in range(STEPS - 1))).apply_async()


def chains(count: int) -> list[str]:
    """Send chains of so many steps in all, and give back the id of each step."""
    ids = []
    for number in range(count // STEPS):
        step = begin_chain(number)
        while step is not None:
            ids.append(step.id)
            step = step.parent
    return ids


def fan_out(count: int) -> list[str]:
    """Send so many steps and the one that gathers their results, and give back their ids."""
    gathered = chord([add.s({"number": number}) for number in range(count)])(gather.s())
    return [gathered.id, *(step.id for step in gathered.parent.children)]


def alone(count: int) -> list[float]:
    """Run chains one after the other, and say how many milliseconds each took until its result was here."""
    took = []
    for number in range(WARM_UP + count):
        before = time.perf_counter()
        begin_chain(number).get(timeout=PATIENCE_SECONDS)
        took.append((time.perf_counter() - before) * 1_000)
    return took[WARM_UP:]


if __name__ == "__main__":
    json.dump({"chain": chains, "fan_out": fan_out, "alone": alone}[sys.argv[1]](int(sys.argv[2])), sys.stdout)
