"""Puts N no-op tasks on Celery's queue and writes their ids to standard output, as one JSON list."""

from __future__ import annotations

import json
import sys

from celery_app import app, noop


def preload(count: int) -> list[str]:
    """Publish `count` tasks over one connection and give back their ids, in order."""
    with app.producer_pool.acquire(block=True) as producer:
        return [noop.apply_async((number,), producer=producer).id for number in range(count)]


if __name__ == "__main__":
    json.dump(preload(int(sys.argv[1])), sys.stdout)
