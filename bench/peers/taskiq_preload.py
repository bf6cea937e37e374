"""Puts N no-op tasks on Taskiq's queue and writes their ids to standard output, as one JSON list."""

from __future__ import annotations

import asyncio
import json
import sys

from taskiq_app import broker, noop

WINDOW = 500


async def preload(count: int) -> list[str]:
    """Send `count` tasks, 500 in flight, and give back their ids."""
    await broker.startup()
    ids = []
    for start in range(0, count, WINDOW):
        sent = await asyncio.gather(*(noop.kiq(number) for number in range(start, min(start + WINDOW, count))))
        ids += [task.task_id for task in sent]
    await broker.shutdown()
    return ids


if __name__ == "__main__":
    json.dump(asyncio.run(preload(int(sys.argv[1]))), sys.stdout)
