"""The shop as a process of its own, for tests of what a process writes to its log and sends to a collector.

It is told nothing but its environment. Its last line is the trace id of the request that it made of itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import structlog
from opentelemetry import trace
from shop import OrderPlaced, Shop, shop_service

from carillon import Tasks
from carillon.cloudevents import Envelope
from carillon.ids import new_id
from carillon.ledger.records import NewRun, Priority
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.telemetry.traces import current_traceparent
from carillon.testing import eventually, running

log = structlog.get_logger(__name__)


def declare_talkative(tasks: Tasks) -> None:
    """Tasks that log in each of the ways that tasks may."""

    @tasks.task()
    async def talk() -> None:
        """Log. Safe to run twice: it only logs."""
        log.info("talked", loudly=True)

    @tasks.task()
    def talk_from_a_thread() -> None:
        """Log through the standard library. Safe to run twice: it only logs."""
        logging.getLogger("some.library").warning("talked from a thread")

    @tasks.task()
    async def betray() -> None:
        """Log an error, with a password near it. Safe to run twice: it only logs."""
        password = "hunter2-in-a-local"
        try:
            {}[len(password)]
        except LookupError:
            log.exception("betrayed")


async def main() -> str:
    """Serve until everything that one request caused has ended; returns the trace id of that request."""
    settings, shop = PlatformSettings(), Shop()
    service = shop_service(settings, shop)
    declare_talkative(service.tasks)
    async with Platform(settings, name="caller") as platform, running(service, platform):
        await eventually(lambda: can_be_reached(platform))
        with trace.get_tracer("caller").start_as_current_span("request"):
            traceparent = current_traceparent()
            envelope = Envelope.of(OrderPlaced(order="o1"), source="/caller", traceparent=traceparent)
            await platform.say(envelope, actor="caller")
            for task, args in [
                ("stumble", '{"times": 1}'),
                ("talk", "{}"),
                ("talk_from_a_thread", "{}"),
                ("betray", "{}"),
            ]:
                run = NewRun(id=new_id(), domain="shop", task=f"shop.{task}", args=args, traceparent=traceparent)
                await platform.submit(run)
        await eventually(lambda: all_ended(platform, 7))
    return traceparent.split("-")[1]


async def can_be_reached(platform: Platform) -> bool:
    """Whether the queues are there; what comes earlier is brought by the sweeper, which takes its time."""
    return platform.transport.is_ledger or await platform.transport.waiting("shop", Priority.NORMAL) is not None


async def all_ended(platform: Platform, count: int) -> bool:
    async with platform.ledger.transaction() as connection:
        return await connection.fetchval("select count(*) from carillon.runs where state = 'completed'") == count


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"event": "done", "trace_id": asyncio.run(main())}) + "\n")
