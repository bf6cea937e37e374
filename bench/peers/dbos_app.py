"""DBOS as it is measured here: `python dbos_app.py schema|chain|fan_out|work|alone [N]`.

In its favour: plain functions in a few threads, which was the fastest of its ways here, no query before each use of a
connection, and a queue that is asked every 50 ms instead of each second. Its own tables say what ran, and when.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable

from dbos import DBOS, DBOSClient, DBOSConfig

#: Of the application, its version and its queue.
NAME = "bench"
URL = os.environ["BENCH_DATABASE_URL"]
STEPS = 10
WARM_UP = 3

config: DBOSConfig = {
    "name": NAME,
    "application_version": NAME,
    "system_database_url": URL,
    # Without a bound each workflow has a thread, and a hundred of them get a third less done.
    "max_executor_threads": 6,
    "db_engine_kwargs": {"pool_pre_ping": False},
    "log_level": "ERROR",
}


def added(value: dict[str, int]) -> dict[str, int]:
    """Count one further."""
    return {"number": value["number"] + 1}


add = DBOS.step(name="add")(added)


@DBOS.workflow()
def chain(number: int) -> dict[str, int]:
    """Ten steps, each with the result of the one before."""
    value = {"number": number}
    for _ in range(STEPS):
        value = add(value)
    return value


@DBOS.workflow()
async def fan_out(count: int) -> int:
    """Begin `count` steps at once, and add up what they return."""
    begun = (DBOS.run_step_async({"name": "add"}, added, {"number": number}) for number in range(count))
    return sum(value["number"] for value in await asyncio.gather(*begun))


def schema() -> None:
    """Make the tables and the queue."""
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(NAME, polling_interval_sec=0.05)
    DBOS.destroy()


def enqueue(workflow: str, arguments: Iterable[int]) -> None:
    """Put a workflow on the queue for each argument."""
    client = DBOSClient(system_database_url=URL, application_name=NAME)
    for argument in arguments:
        client.enqueue({"queue_name": NAME, "workflow_name": workflow}, argument)
    client.destroy()


def work() -> None:
    """Work until SIGTERM."""
    DBOS(config=config)
    DBOS.launch()
    signal.pause()


def alone(count: int) -> list[float]:
    """Run `count` chains one after the other, and say how many milliseconds each took from its start to its result."""
    DBOS(config=config)
    DBOS.launch()
    took = []
    for number in range(WARM_UP + count):
        before = time.perf_counter()
        DBOS.start_workflow(chain, number).get_result()
        took.append((time.perf_counter() - before) * 1_000)
    DBOS.destroy()
    return took[WARM_UP:]


def main(action: str, count: int) -> None:
    """Do one of the actions; for `chain` and `fan_out`, `count` is that of the steps, and how many it are is written."""
    if action == "schema":
        schema()
    elif action == "chain":
        enqueue(action, range(count // STEPS))
        json.dump(count // STEPS * STEPS, sys.stdout)
    elif action == "fan_out":
        enqueue(action, [count])
        json.dump(count, sys.stdout)
    elif action == "alone":
        json.dump(alone(count), sys.stdout)
    else:
        work()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
