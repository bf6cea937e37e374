"""Faults of RabbitMQ: away, alarmed, wiped, robbed of queues, and flooded with garbage."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aio_pika
import orjson

from carillon.ids import new_id
from carillon.ledger.records import Priority
from chaos import collecting
from chaos.client import Work
from chaos.domain import WORKING, Chimed
from chaos.hand import hand
from chaos.scenarios.scenario import RABBITMQ, Scenario
from chaos.servers import fetch

if TYPE_CHECKING:
    from chaos.stage import Stage

#: A submit may wait for the broker this long and no longer, with a second for the machine.
MOST_SUBMIT_SECONDS = 6.5
#: Both alarms of RabbitMQ: how they are raised and how they are cleared.
ALARMS = {
    "memory alarms": (("set_vm_memory_high_watermark", "0"), ("set_vm_memory_high_watermark", "0.4")),
    "disk alarms": (("set_disk_free_limit", "999GB"), ("set_disk_free_limit", "50MB")),
}
#: A consumer that the broker has forgotten notices it within this time.
BACK_SECONDS = 15.0
#: Messages of each kind of garbage.
GARBAGE = 50


async def stop_broker(stage: Stage) -> None:
    """The broker is stopped, away, and started again."""
    async with stage.under_load():
        for number, seconds in enumerate(stage.profile.outages):
            if number:
                await asyncio.sleep(stage.profile.usual)
            await stage.servers.ctl("stop_app")
            stage.faults["broker stopped"] += 1
            await asyncio.sleep(seconds)
            await stage.servers.ctl("start_app")
    wanted = sum(stage.profile.workers.values()) * len(Priority)

    async def all_back() -> bool:
        return len(await _consumed(stage)) >= wanted

    await stage.until_async(all_back, BACK_SECONDS)
    consumers = len(await _consumed(stage))
    stage.expect(consumers >= wanted, f"{consumers} of {wanted} consumers came back")


async def _consumed(stage: Stage) -> list[str]:
    """The queue of runs of each consumer: a worker is one of each priority's."""
    listed = await stage.servers.ctl("list_consumers", "queue_name")
    return [line for line in listed.splitlines() if line.startswith(f"{stage.prefix}.") and ".tasks" in line]


async def raise_alarms(stage: Stage) -> None:
    """A memory alarm and a disk alarm: who publishes is blocked, who takes goes on taking."""
    lasting = 60.0 if stage.profile.everything else stage.profile.fault
    async with stage.under_load(), hand(stage) as submit:
        for name, (raised, cleared) in ALARMS.items():
            works = (Work(ticket=str(new_id()), domain="bells", milliseconds=400) for _ in range(150))
            await asyncio.gather(*(submit(work) for work in works))
            began = time.time()
            try:
                await stage.servers.ctl(*raised)
                if (await stage.servers.ctl("eval", "rabbit_alarm:get_alarms().")).strip() != "[]":
                    stage.faults[name] += 1
                await asyncio.sleep(lasting)
            finally:
                await stage.servers.ctl(*cleared)
            drained = stage.ended_between(began + 0.5, time.time())
            stage.expect(drained > 0, f"nothing ended during the {name}")
            await asyncio.sleep(2.0)
    slowest = _slowest_submit(stage)
    stage.expect(slowest <= MOST_SUBMIT_SECONDS, f"a submit took {slowest:.1f} s")


def _slowest_submit(stage: Stage) -> float:
    submits, answers = collecting.asked(stage.settings)
    asked = {submit.ticket: submit.at for submit in submits}
    return max(answer.at - asked[answer.ticket] for answer in answers)


async def rob_queues(stage: Stage) -> None:
    """Queues are deleted under their consumers, a binding is deleted, and then the queue it was bound to."""
    events = f"{stage.prefix}.choir.events"
    robbed = {f"{stage.prefix}.bells.tasks", f"{stage.prefix}.bells.tasks.urgent"}
    async with stage.under_load(chime=0.1):
        for queue in robbed:
            await stage.servers.ctl("delete_queue", queue)
            stage.faults["queues deleted"] += 1
        await asyncio.sleep(stage.profile.fault / 3)
        await _unbind(stage, events)
        stage.faults["bindings deleted"] += 1
        await asyncio.sleep(stage.profile.fault / 3)
        await stage.servers.ctl("delete_queue", events)
        stage.faults["queues deleted"] += 1
        await asyncio.sleep(stage.profile.fault / 3)

    async def all_back() -> bool:
        return robbed <= set(await _consumed(stage))

    back = await stage.until_async(all_back, BACK_SECONDS)
    stage.expect(back, "nobody consumes a queue that was deleted")


async def _unbind(stage: Stage, queue: str) -> None:
    async with await aio_pika.connect(stage.crew.env["RABBIT_URL"]) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(queue)).unbind("events", Chimed.type)


async def wipe_broker(stage: Stage, **plan: Any) -> None:
    """RabbitMQ forgets everything it ever knew, under load."""
    async with stage.under_load(**plan):
        if stage.servers.node is not None:
            await asyncio.to_thread(stage.servers.node.wipe)
            stage.faults["broker wiped"] += 1


async def flood_with_garbage(stage: Stage) -> None:
    """Messages that nobody can read, and some that nobody should believe, among good ones."""
    async with stage.under_load():
        unreadable, unbelievable = await _publish_garbage(stage)
        stage.faults["unreadable messages"] = unreadable
        stage.faults["forged deliveries"] = unbelievable

        async def all_buried() -> bool:
            return await _buried(stage) >= unreadable

        await stage.until_async(all_buried, 20)
    buried = await _buried(stage)
    # One that was buried when its worker lost its connection is buried again.
    stage.expect(buried == unreadable, f"{buried} of {unreadable} unreadable messages were kept")


async def _buried(stage: Stage) -> int:
    (row,) = await fetch(stage.ledger_url, "select count(*) from carillon.dead_letters")
    return int(row[0])


async def _publish_garbage(stage: Stage) -> tuple[int, int]:
    """Publish it; returns how many cannot be read, and how many can and must change nothing."""
    dice = stage.dice
    pickled = b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    unreadable = [b"", pickled, b"{}", b"[1, 2]", b'{"id": "no", "attempt": -1}', dice.randbytes(200)]
    forged = [orjson.dumps({"id": str(new_id()), "attempt": 1, "task": "bells.ring", "args": {}})]
    count = 0
    async with await aio_pika.connect(stage.crew.env["RABBIT_URL"]) as connection:
        channel = await connection.channel()
        events = await channel.get_exchange("events")
        for number in range(GARBAGE):
            for body in (*unreadable, *forged):
                queue = f"{stage.prefix}.{WORKING[number % 2]}.tasks"
                await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue)
            for body in unreadable:
                await events.publish(aio_pika.Message(body), routing_key=Chimed.type)
            count += 1
    return 2 * count * len(unreadable), count * len(forged)


SCENARIOS = (
    Scenario("F10", "the broker is stopped and started again", stop_broker, RABBITMQ, quick=RABBITMQ),
    Scenario("F13", "memory alarm, disk alarm", raise_alarms, RABBITMQ, quick=RABBITMQ),
    Scenario("F14", "queues and a binding are deleted under load", rob_queues, RABBITMQ, quick=RABBITMQ),
    Scenario("WIPED", "the broker forgets everything under load", wipe_broker, RABBITMQ, quick=RABBITMQ),
    Scenario("GARBAGE", "a flood of garbage among good messages", flood_with_garbage, RABBITMQ, quick=RABBITMQ),
)
