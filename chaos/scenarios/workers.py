"""Faults of workers: killed, frozen, gone, of two versions, and with a middleware that raises."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika

from carillon.ids import new_id
from carillon.ledger.history import Search
from carillon.platform import Platform
from chaos import collecting
from chaos.client import Work
from chaos.crew import READY_SECONDS
from chaos.hand import hand, settings_of
from chaos.mutations import POINTS
from chaos.recovery import SHARE, rate
from chaos.scenarios.scenario import BOTH, POSTGRES, RABBITMQ, Scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chaos.crew import Member
    from chaos.stage import Stage

#: What Carillon calls a run that the worker which took it could not understand.
NOT_UNDERSTOOD = {"UnknownTaskError", "InvalidArgumentsError"}
#: The silence that Carillon ships with, in seconds.
SILENCE_SECONDS = 15.0
#: Points that the ledger as a transport does not have: nothing is delivered, and nothing unreadable buried.
BROKER_POINTS = {"before_start", "after_burial"}
#: How long a death that was asked for may take, behind whatever waits.
DEATH_SECONDS = 60.0


async def kill_workers(stage: Stage, **plan: Any) -> None:
    """SIGKILL to a random worker, again and again."""
    profile = stage.profile
    lasting = profile.kill_runs / profile.rate if profile.kill_runs else profile.fault + profile.kill_every
    async with stage.under_load(**plan):
        async for _ in stage.every(profile.kill_every, lasting=lasting):
            stage.kill(stage.crew.any_ready(stage.dice, *profile.workers), "workers killed")


async def die_at_points(stage: Stage) -> None:
    """Workers die at each named point of a run's life, once for each id."""
    points = [p for p in POINTS if stage.transport == "rabbitmq" or p not in BROKER_POINTS]
    stage.workers(CHAOS_CRASHES="1")
    most = len(stage.crew.named("bells"))
    async with stage.under_load(long=0), hand(stage) as submit:
        for number, point in enumerate(points * stage.profile.crashes, start=1):
            await _ask_for_death(stage, point, submit)
            # One after the other: deaths that wait together in a backlog, or while workers start on cores that are
            # busy, would take them all at once, and what then stands still says nothing of the points.
            await stage.until(lambda number=number: len(stage.tallied("killed")) >= number, DEATH_SECONDS)
            await stage.until(lambda: len(stage.crew.able("bells")) >= most - 1, READY_SECONDS)
            # Who was there at three deaths by chance looks like the one that they were asked of.
            await stage.until_async(lambda: collecting.all_recovered(stage.ledger_url), DEATH_SECONDS)
        stage.faults["killed at named points"] = len(stage.tallied("killed"))
    met = {line["point"] for line in stage.tallied("killed")}
    stage.expect(met == set(points), f"nobody died at {', '.join(sorted(set(points) - met))}")


async def _ask_for_death(stage: Stage, point: str, submit: Callable[[Work], Awaitable[None]]) -> None:
    if point == "after_burial":
        # Its ticket is made of its body, because a message that nobody can read has no other.
        await _publish(stage, f"{stage.prefix}.bells.tasks", f"crash.after_burial.{uuid4().hex}".encode())
        return
    function = "falter" if point == "after_retry" else "ring"
    ticket = f"crash.{point}.{uuid4().hex}"
    await submit(Work(ticket=ticket, domain="bells", function=function, run=str(new_id())))


async def _publish(stage: Stage, queue: str, body: bytes) -> None:
    async with await aio_pika.connect(stage.crew.env["RABBIT_URL"]) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue)


async def freeze_worker(stage: Stage, **plan: Any) -> None:
    """SIGSTOP a worker in the middle of runs for longer than the silence that makes it lost, then SIGCONT."""
    silence = stage.profile.silence or SILENCE_SECONDS
    async with stage.under_load(**plan), hand(stage) as submit:
        frozen = stage.crew.named("bells")[0]
        long = {str(new_id()) for _ in range(12)}
        for ticket in long:
            await submit(Work(ticket=ticket, domain="bells", milliseconds=1500))
        await stage.until(lambda: _in_hand(stage, frozen, long), 10)
        if frozen.signal(signal.SIGSTOP):
            stage.faults["workers frozen"] += 1
        caught = _in_hand(stage, frozen, long)
        await stage.until(lambda: _taken_over(stage, caught), silence + 15)
        # So that the other worker ends them first, and the late end meets a run that has ended.
        await asyncio.sleep(2.0)
        frozen.signal(signal.SIGCONT)
    late = {m.run for m in stage.marks() if m.kind == "end" and m.run in caught and m.pid == frozen.child.pid}
    taken = Counter(end.run for end in await collecting.ends(stage.ledger_url))
    stage.faults["late ends"] = len(late)
    stage.expect(all(taken[run] == 1 for run in late), "a late end was taken")


def _in_hand(stage: Stage, member: Member, runs: set[str]) -> set[str]:
    """Those of the runs that this process has begun and not ended."""
    mine = [m for m in stage.marks() if m.pid == member.child.pid and m.run in runs]
    return {m.run for m in mine if m.kind == "start"} - {m.run for m in mine if m.kind == "end"}


def _taken_over(stage: Stage, runs: set[str]) -> bool:
    return runs <= {mark.run for mark in stage.marks() if mark.kind == "start" and mark.attempt > 1}


async def lose_a_domain(stage: Stage) -> None:
    """All workers of one domain are gone for a while; the others go on as if nothing were."""
    lasting = 60.0 if stage.profile.everything else stage.profile.fault
    async with stage.under_load():
        # The client gives each domain as much as any other.
        usual = stage.usual / len(stage.profile.workers)
        for member in stage.crew.named("choir"):
            member.wanted = False
            stage.kill(member, "workers gone")
        began = time.time()
        await asyncio.sleep(lasting)
        during = rate(stage.ends("bells"), began, time.time())
        idle = stage.ended_between(began + 1, time.time(), "choir")
        for member in stage.crew.named("choir"):
            member.wanted = True
        await stage.until(lambda: all(m.is_ready for m in stage.crew.named("choir")), 30)
    stage.expect(during >= SHARE * usual, f"the others fell from {usual:.0f} to {during:.0f} runs/s")
    stage.expect(idle == 0, f"{idle} runs ended in a domain without workers")


async def mix_versions(stage: Stage) -> None:
    """An old and a new worker share a queue; the new one knows a task and an argument more."""
    stage.worker("bells", CHAOS_VERSION="1")
    stage.worker("bells", CHAOS_VERSION="2")
    stage.worker("choir")
    new: set[str] = set()
    async with stage.under_load(), hand(stage) as submit:
        for _ in range(60):
            for function, more in (("peal", {}), ("ring", {"loud": True})):
                work = Work(ticket=str(new_id()), domain="bells", function=function, more=more)
                new.add(work.ticket)
                await submit(work)
            await asyncio.sleep(0.03)
    ended = {row.id: row.state for row in await collecting.runs(stage.ledger_url) if row.id in new}
    stage.may_fail = {"bells.peal", "bells.ring"}
    stage.faults["met the old version"] = sum(1 for state in ended.values() if state == "failed")
    stage.faults["met the new version"] = sum(1 for state in ended.values() if state == "completed")
    stage.expect(len(ended) == len(new), f"{len(new) - len(ended)} runs vanished")
    await _expect_reasons(stage, new)


async def _expect_reasons(stage: Stage, new: set[str]) -> None:
    """What failed is one of the new ones, and says why."""
    async with Platform(settings_of(stage), name="chaos") as platform:
        failed = await platform.history.search(Search(states=("failed",), domain="bells", limit=500))
        for row in failed:
            details = await platform.history.run(row["id"])
            kind = ((details or {}).get("error") or {}).get("type", "no reason")
            understood = row["task"].endswith(".crack") or (str(row["id"]) in new and kind in NOT_UNDERSTOOD)
            stage.expect(understood, f"{row['task']} {row['id']} failed with {kind}")


async def raise_in_hooks(stage: Stage) -> None:
    """A middleware of the service raises in every hook."""
    stage.workers(CHAOS_RAISING_MIDDLEWARE="1")
    async with stage.under_load():
        await asyncio.sleep(stage.profile.fault)
    hooks = [line["hook"] for line in stage.tallied("hook")]
    for hook in ("pre_execute", "post_execute", "on_error", "post_save"):
        stage.faults[f"{hook} raised"] = hooks.count(hook)


SCENARIOS = (
    Scenario("F1", "a random worker is killed every 2 s", kill_workers, BOTH, quick=BOTH),
    Scenario("F2", "workers die at each named point", die_at_points, BOTH, quick=RABBITMQ),
    Scenario("F3", "a worker is frozen beyond its lease, then goes on", freeze_worker, BOTH, quick=POSTGRES),
    Scenario("F40", "a middleware raises in every hook", raise_in_hooks, BOTH, quick=POSTGRES),
    Scenario("GONE", "all workers of one domain are gone", lose_a_domain, BOTH, quick=POSTGRES),
    Scenario("VERSIONS", "two versions of a worker side by side", mix_versions, BOTH, quick=POSTGRES),
)
