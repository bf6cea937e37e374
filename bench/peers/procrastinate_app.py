"""Procrastinate as it is measured here: `python procrastinate_app.py schema|preload|work [N]`.

In its favour: an async task, notifications, uvloop, and jobs deferred in batches. Its own tables say what ran, and when.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"], max_size=10))
WINDOW = 1_000


@app.task(name="bench.noop", queue="bench")
async def noop(number: int) -> None:
    """Do nothing."""
    del number


async def main(action: str, count: int) -> None:
    """Make the tables, defer `count` jobs, or work until SIGTERM on up to `count` at once."""
    async with app.open_async():
        if action == "schema":
            await app.schema_manager.apply_schema_async()
        elif action == "preload":
            for start in range(0, count, WINDOW):
                numbers = range(start, min(start + WINDOW, count))
                await noop.batch_defer_async(*({"number": number} for number in numbers))
        else:
            await app.run_worker_async(queues=["bench"], concurrency=count, listen_notify=True)


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
