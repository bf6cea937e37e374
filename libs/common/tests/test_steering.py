"""What people do to runs and queues, on both transports and the twin: cancel, pause, resume, run again, act on many."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from shop import Shop, shop_service

from carillon import Run, Service, Tasks
from carillon.errors import InvalidArgumentsError, NotFoundError, RunStateError
from carillon.ids import new_id
from carillon.ledger.audit import Actor, AuditSearch, record
from carillon.ledger.records import After, NewRun
from carillon.ledger.selections import REPLAY_CHUNK
from carillon.platform import Platform
from carillon.testing import eventually, running

ADA = Actor("ada", "a test")


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def submitted(platform: Platform, task: str = "add", args: str = '{"a": 1}', **options: Any) -> UUID:
    run = NewRun(id=new_id(), domain="shop", task=f"shop.{task}", args=args, **options)
    return (await platform.submit(run)).id


async def state_of(platform: Platform, run: UUID) -> str:
    return (await platform.history.run(run))["state"]


async def ended(platform: Platform, run: UUID) -> Any:
    async def look():
        row = await platform.history.run(run)
        return row if row["finished_at"] else None

    return await eventually(look)


async def entered(shop: Shop) -> bool:
    return shop.entered.is_set()


async def audited(platform: Platform, subject: str) -> list[tuple[str, str]]:
    rows = await platform.audit.page(AuditSearch(subject=subject))
    return [(row["action"], row["actor"]) for row in reversed(rows)]


async def entries_about(platform: Platform, subject: str) -> list[Any]:
    return list(reversed(await platform.audit.page(AuditSearch(subject=subject))))


async def waits_for_a_lock(platform: Platform) -> bool:
    query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    return bool(await platform.ledger.pool.fetchval(query))


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_a_run_that_waits_is_cancelled_at_once_and_never_starts(platform, shop):
    queued, delayed = await submitted(platform), await submitted(platform, run_at=in_an_hour())

    done = [await platform.ledger.steering.cancel(run, ADA, "not needed") for run in (queued, delayed)]
    async with running(shop_service(platform.settings, shop), platform):
        await ended(platform, await submitted(platform, args='{"a": 2}'))

    assert done == [(1, 0), (1, 0)]
    assert [await state_of(platform, run) for run in (queued, delayed)] == ["cancelled", "cancelled"]
    assert (await platform.history.run(queued))["error"]["message"] == "cancelled by ada: not needed"
    assert shop.done["add 1"] == 0
    assert await audited(platform, str(queued)) == [("run.cancelled", "ada")]


async def test_a_run_that_executes_is_cancelled_and_its_code_is_told(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        run = await submitted(platform, "wait_at_the_gate", '{"name": "x"}')
        await eventually(lambda: entered(shop))
        asked = await platform.ledger.steering.cancel(run, ADA)
        row = await ended(platform, run)

    assert asked == (0, 1)
    assert (row["state"], row["error"]["message"], row["attempt"]) == ("cancelled", "cancelled by ada", 1)
    assert shop.done["x"] == 0


async def test_cancelling_a_run_cancels_what_it_submitted_too(platform):
    parent = await submitted(platform, run_at=in_an_hour())
    child = await submitted(platform, run_at=in_an_hour(), parent_id=parent)
    grandchild = await submitted(platform, run_at=in_an_hour(), parent_id=child)
    stranger = await submitted(platform, run_at=in_an_hour())

    done = await platform.ledger.steering.cancel(parent, ADA)

    states = [await state_of(platform, run) for run in (parent, child, grandchild, stranger)]
    assert (done.ended, states) == (3, ["cancelled", "cancelled", "cancelled", "queued"])


async def test_what_a_run_submits_while_it_is_asked_to_end_is_cancelled_when_it_has(platform):
    tasks, entered, made = Tasks("shop"), asyncio.Event(), []

    @tasks.task()
    async def tidy_up(*, run: Run) -> None:
        """Submit more once it is cancelled. Safe to run twice: nothing of it starts."""
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            made.append(await submitted(platform, run_at=in_an_hour(), parent_id=run.id))
            made.append(await submitted(platform, run_at=in_an_hour(), parent_id=made[0]))

    async with running(Service(name="shop", settings=platform.settings, tasks=tasks), platform):
        parent = await submitted(platform, "tidy_up", "{}")
        await asyncio.wait_for(entered.wait(), 10)
        await platform.ledger.steering.cancel(parent, ADA, "enough")
        await ended(platform, parent)
        row = await ended(platform, made[1])

    assert row["error"] == {"type": "Cancelled", "message": "cancelled by ada: enough", "by": "ada"}
    assert [await state_of(platform, run) for run in (parent, *made)] == ["cancelled"] * 3


async def test_cancelling_what_has_ended_changes_nothing_and_is_not_recorded(platform):
    run = await submitted(platform, run_at=in_an_hour())
    await platform.ledger.steering.cancel(run, ADA)

    again = await platform.ledger.steering.cancel(run, ADA, "again")

    assert again == (0, 0)
    assert await audited(platform, str(run)) == [("run.cancelled", "ada")]


async def test_a_run_whose_cancellation_its_worker_did_not_live_to_hear_ends_cancelled(platform):
    dead = new_id()
    run = await submitted(platform, run_at=datetime.now(UTC))
    await platform.ledger.enrol(dead, "shop", "elsewhere", 1, "0", 1)
    await platform.ledger.start((run, 1, dead))
    await platform.ledger.steering.cancel(run, ADA)

    handed_back = await platform.ledger.hand_back(dead)

    assert handed_back.moved == 1
    assert await state_of(platform, run) == "cancelled"


@pytest.mark.parametrize("name", ["shop", "shop.add"])
async def test_nothing_of_what_is_paused_starts_until_it_is_resumed(platform, shop, name):
    steering = platform.ledger.steering
    async with running(shop_service(platform.settings, shop), platform):
        paused = [await steering.pause(name, ADA, "maintenance"), await steering.pause(name, ADA)]
        held = [await submitted(platform) for _ in range(5)]
        other = await submitted(platform, "shout", '{"text": "x"}')
        if name == "shop.add":
            await ended(platform, other)
        await asyncio.wait_for(let_the_worker_look(platform), 20)
        states = {await state_of(platform, run) for run in held}
        resumed = [await steering.resume(name, ADA), await steering.resume(name, ADA)]
        ends = [(await ended(platform, run))["state"] for run in held]

    assert (paused, states, resumed) == ([True, False], {"queued"}, [True, False])
    assert ends == ["completed"] * 5
    assert [action for action, _ in await audited(platform, name)][-2:] == [
        f"{'task' if '.' in name else 'queue'}.paused",
        f"{'task' if '.' in name else 'queue'}.resumed",
    ]


async def let_the_worker_look(platform: Platform) -> None:
    """Until every worker has said twice more that it lives: it claims, or is sent, what there is more often."""

    async def beat() -> datetime:
        (worker,) = await platform.history.live_workers()
        return worker["heartbeat_at"]

    for _ in range(2):
        last = await beat()

        async def has_beaten(last: datetime = last) -> bool:
            return await beat() > last

        await eventually(has_beaten)


@pytest.mark.parametrize("word", ["pause", "resume"])
async def test_steering_what_nobody_knows_is_refused(platform, word):
    with pytest.raises(InvalidArgumentsError, match="no domain and no task is called 'shoe'"):
        await getattr(platform.ledger.steering, word)("shoe", ADA)


async def test_what_was_paused_and_is_not_offered_any_more_can_be_resumed(platform):
    steering, tasks = platform.ledger.steering, Tasks("shop")

    @tasks.task()
    async def add() -> None:
        """Add nothing. Safe to run twice: it does nothing."""

    await platform.catalogue.register("shop", [add.entry(queue="shop")], [], {})
    await steering.pause("shop", ADA)
    await platform.catalogue.register("shop", [], [], {})

    assert await steering.resume("shop", ADA)
    with pytest.raises(InvalidArgumentsError, match="no domain and no task is called 'shop'"):
        await steering.resume("shop", ADA)


async def test_one_run_is_paused_and_goes_on_when_it_is_resumed(platform, shop):
    steering = platform.ledger.steering
    run = await submitted(platform)

    paused = await steering.pause_run(run, ADA)
    async with running(shop_service(platform.settings, shop), platform):
        await ended(platform, await submitted(platform, args='{"a": 2}'))
        still = await state_of(platform, run)
        resumed = await steering.resume_run(run, ADA)
        row = await ended(platform, run)

    assert (paused, still, resumed) == ((True, "paused"), "paused", (True, "queued"))
    assert row["state"] == "completed"
    assert await audited(platform, str(run)) == [("run.paused", "ada"), ("run.resumed", "ada")]


async def test_a_resumed_run_does_not_wait_anew_for_what_had_let_it_go(platform, shop):
    steering = platform.ledger.steering
    need = await submitted(platform)
    run = await submitted(platform, after=After(runs=[need], delay=timedelta(hours=1)))

    async with running(shop_service(platform.settings, shop), platform):
        await ended(platform, need)
        await eventually(lambda: is_in(platform, run, "queued"))
    due = (await platform.history.run(run))["run_at"]
    await steering.pause_run(run, ADA)
    resumed = await steering.resume_run(run, ADA)

    assert (resumed, (await platform.history.run(run))["run_at"]) == ((True, "queued"), due)


async def is_in(platform: Platform, run: UUID, state: str) -> bool:
    return await state_of(platform, run) == state


async def failed_run(platform: Platform) -> UUID:
    run = await submitted(platform, "refuse", '{"how": "never"}')
    await ended(platform, run)
    return run


async def test_a_failed_run_is_run_again_once_however_often_that_is_asked(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        run = await failed_run(platform)
        replays = platform.ledger.replays
        asked = await asyncio.gather(*(replays.replay(run, ADA, args={"how": "snooze"}) for _ in range(5)))
        replay = await platform.history.run(asked[0].id)

    assert len({each.id for each in asked}) == 1
    assert [each.created for each in asked].count(True) == 1
    assert (replay["replay_of"], replay["args"]) == (run, {"how": "snooze"})
    assert await state_of(platform, run) == "failed"
    assert await audited(platform, str(run)) == [("run.replayed", "ada")]


async def test_what_did_not_fail_cannot_be_run_again(platform):
    run = await submitted(platform, run_at=in_an_hour())

    with pytest.raises(RunStateError, match="has not ended"):
        await platform.ledger.replays.replay(run, ADA)


@pytest.mark.real("selections")
async def test_a_run_whose_replay_was_deleted_is_run_again(platform):
    run = await cancelled_run(platform)
    first = await platform.ledger.replays.replay(run, ADA)
    await platform.ledger.steering.cancel(first.id, ADA)
    selection = await platform.ledger.selections.make("delete", "r.id = $1", [first.id], {}, ADA)
    await platform.ledger.selections.act(selection.id, ADA)

    again = await platform.ledger.replays.replay(run, ADA, args={"a": 2})

    row = await platform.history.run(again.id)
    assert again.created
    assert (row["replay_of"], row["args"], row["state"]) == (run, {"a": 2}, "queued")


async def cancelled_run(platform: Platform) -> UUID:
    run = await submitted(platform, run_at=in_an_hour())
    await platform.ledger.steering.cancel(run, ADA)
    return run


@pytest.mark.real("groups of dead letters")
async def test_failed_runs_are_grouped_by_what_went_wrong_until_somebody_deals_with_them(platform, shop):
    letters = platform.ledger.dead_letters
    async with running(shop_service(platform.settings, shop), platform):
        runs = [await failed_run(platform) for _ in range(3)]
        other = await submitted(platform, "dawdle", "{}")
        await ended(platform, other)
        groups = await letters.runs("shop")
        settled = await platform.ledger.replays.settle([runs[0]], ADA, "known")
        await platform.ledger.replays.replay(runs[1], ADA)
        left = await letters.runs()

    assert {(group.task, group.count) for group in groups} == {("shop.refuse", 3), ("shop.dawdle", 1)}
    assert settled == 1
    assert runs[2] in next(group for group in left if group.task == "shop.refuse").sample


@pytest.mark.real("selections")
async def test_a_preview_binds_the_act_to_what_was_shown(platform):
    shown = [await submitted(platform, run_at=in_an_hour()) for _ in range(3)]
    selections = platform.ledger.selections
    selection = await selections.make("cancel", "r.task = $1", ["shop.add"], {"task": "shop.add"}, ADA)
    later = await submitted(platform, run_at=in_an_hour())

    progress = await selections.act(selection.id, ADA, "storm")

    assert (selection.count, len(selection.sample)) == (3, 3)
    assert progress == (selection.id, 3, 0, 0, "cancel", 3, None, ())
    assert [await state_of(platform, run) for run in (*shown, later)] == ["cancelled"] * 3 + ["queued"]
    errors = [(await platform.history.run(run))["error"]["message"] for run in shown]
    assert errors == ["cancelled by ada: storm"] * 3
    assert await audited(platform, str(selection.id)) == [("runs.cancelled", "ada")]


@pytest.mark.real("selections")
async def test_what_changed_since_the_preview_is_counted_apart(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        failed = [await failed_run(platform) for _ in range(2)]
    waiting = [await submitted(platform, run_at=in_an_hour()) for _ in range(2)]
    ledger, where = platform.ledger, "r.id = any($1)"
    chosen = [await ledger.selections.make("cancel", where, [waiting], {}, ADA)]
    chosen += [await ledger.selections.make(act, where, [failed], {"of": "two"}, ADA) for act in ("settle", "delete")]
    await ledger.steering.cancel(waiting[0], ADA)
    await ledger.replays.settle(failed[:1], ADA)

    acts = [await ledger.selections.act(selection.id, ADA, "why") for selection in chosen]
    again = await ledger.selections.act(chosen[0].id, ADA)

    assert [(act.done, act.skipped, act.remaining) for act in acts] == [(2, 1, 0), (2, 1, 0), (2, 0, 0)]
    assert again == acts[0]
    entries = [await entries_about(platform, str(selection.id)) for selection in chosen]
    assert [[(e["reason"], e["details"]["runs"], e["details"]["selected"]) for e in of] for of in entries] == [
        [("why", 1, 2)], [("why", 1, 2)], [("why", 2, 2)],
    ]  # fmt: skip
    assert entries[1][0]["details"]["filters"] == {"of": "two"}


@pytest.mark.real("selections")
async def test_acts_and_single_steering_take_their_locks_in_one_order(platform):
    """The trail is written last: who acts on many waits for a run, and not the other way round."""
    run = await submitted(platform, run_at=in_an_hour())
    selection = await platform.ledger.selections.make("cancel", "r.id = $1", [run], {}, ADA)

    async with platform.ledger.transaction() as connection:
        await connection.execute("select from carillon.runs_live where id = $1 for update", run)
        acting = asyncio.create_task(platform.ledger.selections.act(selection.id, ADA))
        await eventually(partial(waits_for_a_lock, platform))
        await record(connection, ADA.did("run.paused", str(run)))

    assert (await acting).done == 1


@pytest.mark.real("selections")
async def test_a_run_and_its_replay_that_failed_too_are_run_again_once(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        first = await failed_run(platform)
        again = (await platform.ledger.replays.replay(first, ADA)).id
        await ended(platform, again)

    selection = await platform.ledger.selections.make("replay", "r.state = 'failed'", [], {}, ADA)

    assert [row["id"] for row in selection.sample] == [again]


@pytest.mark.real("selections")
async def test_a_selection_of_somebody_else_is_refused(platform):
    selection = await platform.ledger.selections.make("cancel", "true", [], {}, ADA)

    with pytest.raises(NotFoundError, match="make the preview again"):
        await platform.ledger.selections.act(selection.id, Actor("eve", "a test"))


@pytest.mark.real("selections")
async def test_a_group_is_run_again_after_one_that_goes_ahead_and_stops_when_that_fails(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        runs = [await failed_run(platform) for _ in range(3)]
        selection = await platform.ledger.selections.make("replay", "r.id = any($1)", [runs], {}, ADA)
        await platform.ledger.selections.act(selection.id, ADA, per_second=100)
        replays = await platform.ledger.pool.fetch("select id from carillon.runs where replay_of = any($1)", runs)
        ends = [(await ended(platform, row["id"]))["state"] for row in replays]

    assert sorted(ends) == ["cancelled", "cancelled", "failed"]


@pytest.mark.real("selections")
async def test_what_goes_ahead_of_a_group_was_made_for_it_and_not_before(platform):
    old, new = await cancelled_run(platform), await cancelled_run(platform)
    selections = platform.ledger.selections
    chosen = [await selections.make("replay", "r.id = any($1)", [runs], {}, ADA) for runs in ([old], [old, new])]
    await platform.ledger.replays.replay(old, ADA)

    acts = [await selections.act(selection.id, ADA) for selection in chosen]

    (made,) = await platform.history.replays_of(new)
    assert [(act.done, act.skipped, act.canary) for act in acts] == [(1, 1, None), (2, 1, made["id"])]


@pytest.mark.real("selections")
async def test_what_was_run_again_and_goes_well_is_not_chosen_for_it(platform):
    runs = [await cancelled_run(platform) for _ in range(3)]
    replays = platform.ledger.replays
    await replays.replay(runs[0], ADA)
    gone = await replays.replay(runs[1], ADA)
    await platform.ledger.steering.cancel(gone.id, ADA)

    selection = await platform.ledger.selections.make("replay", "r.id = any($1)", [runs], {}, ADA)

    assert {row["id"] for row in selection.sample} == set(runs[1:])


@pytest.mark.real("selections")
async def test_a_group_beyond_one_act_is_run_again_in_several(platform):
    runs = [await submitted(platform, args=f'{{"a": {n}}}', run_at=in_an_hour()) for n in range(REPLAY_CHUNK + 5)]
    selections = platform.ledger.selections
    cancelled = await selections.make("cancel", "true", [], {}, ADA)
    await selections.act(cancelled.id, ADA)
    selection = await selections.make("replay", "true", [], {"state": ["cancelled"]}, ADA)

    acts = [await selections.act(selection.id, ADA, per_second=1, canary=False) for _ in range(3)]

    found = await platform.ledger.pool.fetch(
        "select replay_of, state, run_at - now() as late from carillon.runs where replay_of is not null order by run_at"
    )
    assert [(act.done, act.remaining, act.canary) for act in acts] == [
        (100, 5, None), (105, 0, None), (105, 0, None),
    ]  # fmt: skip
    assert {row["replay_of"] for row in found} == set(runs)
    assert {row["state"] for row in found} == {"queued"}
    assert found[-1]["late"] > timedelta(seconds=95)


@pytest.mark.real("selections")
async def test_what_ended_is_deleted_and_what_lives_stays(platform, shop):
    async with running(shop_service(platform.settings, shop), platform):
        run = await failed_run(platform)
    alive = await submitted(platform, run_at=in_an_hour())
    selection = await platform.ledger.selections.make("delete", "r.domain = 'shop'", [], {}, ADA)

    progress = await platform.ledger.selections.act(selection.id, ADA)

    assert (progress.done, progress.remaining) == (1, 0)
    assert await platform.history.run(run) is None
    assert await state_of(platform, alive) == "queued"
