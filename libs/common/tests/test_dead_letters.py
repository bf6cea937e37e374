"""What nobody could read: how much of it is kept, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from carillon import clock
from carillon.errors import RunStateError
from carillon.ids import new_id
from carillon.ledger import days
from carillon.ledger.audit import Actor, AuditSearch, record
from carillon.ledger.dead_letters import MOST_KEPT_BYTES
from carillon.ledger.records import After, NewRun

pytestmark = pytest.mark.real("unreadable messages")

ADA = Actor("ada", "a test")


@pytest.mark.parametrize(("more", "size"), [(0, None), (1, MOST_KEPT_BYTES + 1)])
async def test_of_a_long_message_the_beginning_is_kept_and_how_long_it_was(platform, more, size):
    await platform.bury("carillon.shop.events", "no JSON", b"x" * (MOST_KEPT_BYTES + more), {})

    (letter,) = await platform.history.dead_letters()

    assert (len(letter["body"]), letter["size"]) == (MOST_KEPT_BYTES, size)


async def test_a_message_that_was_cut_is_redelivered_with_a_body_only_and_stays(platform):
    await platform.bury("carillon.shop.events", "no JSON", b"x" * (MOST_KEPT_BYTES + 1), {})
    (letter,) = await platform.history.dead_letters()

    with pytest.raises(RunStateError, match="of 1,048,577 bytes are kept; give a whole body"):
        await platform.ledger.dead_letters.redeliver(letter["id"], platform.transport, ADA)

    assert len(await platform.history.dead_letters()) == 1


async def test_the_audit_trail_is_free_while_the_transport_takes_its_time(platform, monkeypatch):
    for _ in range(2):
        await platform.bury("carillon.shop.events", "no JSON", b"{", {})
    letters, (one, _) = platform.ledger.dead_letters, await platform.history.dead_letters()

    async def take(*_: object) -> None:
        async with asyncio.timeout(5), platform.ledger.transaction() as connection:
            await record(connection, ADA.did("key.created", "meanwhile"))

    monkeypatch.setattr(platform.transport, "redeliver", take)

    assert await letters.redeliver(one["id"], platform.transport, ADA)
    assert await letters.redeliver_oldest(one["fingerprint"], platform.transport, ADA, until=clock.now()) == 1
    entries = await platform.audit.page(AuditSearch(actor=ADA.name, limit=4))
    assert [entry["action"] for entry in entries] == ["message.redelivered", "key.created"] * 2


@pytest.mark.parametrize("filed", [True, False])
async def test_what_a_run_waited_for_is_forgotten_with_it(platform, filed):
    ledger, first = platform.ledger, NewRun(id=new_id(), domain="shop", task="shop.add", args="{}")
    await platform.submit(first)
    waiting = [replace(first, id=new_id(), after=After(runs=[first.id])) for _ in range(2)]
    await platform.submit_many(waiting)
    await ledger.steering.cancel(waiting[0].id, ADA)
    if filed:
        async with ledger.pool.acquire() as connection:
            await days.make(connection, since=clock.now().date() - timedelta(days=9))
    await ledger.pool.execute(
        "update carillon.runs set ended_on = current_date - 9 where id = $1 and ended_on < 'infinity'", waiting[0].id
    )

    await ledger.forget(timedelta(days=7))

    assert await platform.history.run(waiting[0].id) is None
    kept = await ledger.pool.fetch("select run_id from carillon.needs where on_id = $1", first.id)
    assert [row["run_id"] for row in kept] == [waiting[1].id]


async def test_old_fires_are_forgotten_but_for_the_newest_of_each_schedule(platform):
    await platform.ledger.pool.execute("""
        insert into carillon.fires (schedule, fire_at, outcome, decided_at)
        select 'old', at, 'fired', at
        from generate_series(1, 60) n, lateral (select now() - n * interval '1 year') t(at)
        union all select 'new', now() - n * interval '1 hour', 'fired', now() from generate_series(1, 60) n
    """)

    forgotten = [await platform.ledger.forget_fires(timedelta(days=7)) for _ in range(2)]

    kept = await platform.ledger.pool.fetch("select schedule, count(*) as n from carillon.fires group by 1 order by 1")
    assert (forgotten, [(row["schedule"], row["n"]) for row in kept]) == ([10, 0], [("new", 60), ("old", 50)])


async def test_unreadable_messages_are_forgotten_when_ended_runs_are(platform):
    for reason in ("old", "new"):
        await platform.bury("carillon.shop.events", reason, b"{", {})
    await platform.ledger.pool.execute(
        "update carillon.dead_letters set received_at = now() - interval '8 days' where reason = 'old'"
    )

    await platform.ledger.forget(timedelta(days=7))

    assert [letter["reason"] for letter in await platform.history.dead_letters()] == ["new"]
