"""Limits, on both transports and the twin: of tasks, domains and keys; rates; across workers, crashes and changes."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from behind import let_buckets_fill, silence

from carillon import Limits, Rate, Retry, Run, Service, Tasks
from carillon.errors import ConfigurationError, Snooze, TransientError
from carillon.ids import new_id
from carillon.ledger.audit import Actor, AuditSearch
from carillon.ledger.records import NewRun
from carillon.ledger.statements import limits as statements
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running

pytestmark = pytest.mark.long(seconds=100)

ADA = Actor("ada", "a test")
ADA_S = new_id()


class Kitchen:
    """What the cooks did, and how many of them at once."""

    def __init__(self) -> None:
        self.cooking: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.started: list[tuple[float, str, str]] = []
        self.gate = asyncio.Event()

    @asynccontextmanager
    async def cook(self, *places: str) -> AsyncIterator[None]:
        """Be counted at these places."""
        for place in places:
            self.cooking[place] += 1
            self.most[place] = max(self.most[place], self.cooking[place])
        try:
            yield
        finally:
            for place in places:
                self.cooking[place] -= 1


def kitchen_service(
    settings: PlatformSettings, kitchen: Kitchen, limits: Limits | None = None, **options: Any
) -> Service:
    """A kitchen whose `cook` has the limits of the test."""
    tasks = Tasks("kitchen")

    @tasks.task(limits=limits, retry=Retry(attempts=3, base=timedelta(milliseconds=1)))
    async def cook(dish: str, customer: Any = "", seconds: float = 0.0, *, run: Run, kitchen: Kitchen) -> str:
        """Cook, for as long as it takes, or until the gate opens. Safe to run twice: it counts."""
        kitchen.started.append((time.monotonic(), customer, dish))
        async with kitchen.cook("kitchen", "cook", f"of {customer}"):
            if seconds < 0:
                await kitchen.gate.wait()
            await asyncio.sleep(max(0.0, seconds))
            if dish == "burnt":
                raise TransientError("it is black", retry_after=timedelta(hours=1))
            if dish == "frozen":
                raise Snooze(timedelta(hours=1))
        return dish

    @tasks.task()
    async def wash(seconds: float, *, kitchen: Kitchen) -> None:
        """Wash, without limits of its own. Safe to run twice: it counts."""
        kitchen.started.append((time.monotonic(), "", "wash"))
        async with kitchen.cook("kitchen", "wash"):
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def resources(_):
        yield {Kitchen: kitchen}

    return Service(name="kitchen", settings=settings, tasks=tasks, resources=resources, **options)


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


@asynccontextmanager
async def workers(number: int, platform: Platform, kitchen: Kitchen, limits: Limits | None, **options: Any):
    """So many workers of the kitchen, each a platform of its own."""
    async with AsyncExitStack() as open_:
        for _ in range(number):
            service = kitchen_service(platform.settings, kitchen, limits, **options)
            await open_.enter_async_context(running(service, platform))
        yield


async def order(platform: Platform, args: str, *, task: str = "cook", **options: Any) -> UUID:
    run = NewRun(id=new_id(), domain="kitchen", task=f"kitchen.{task}", args=args, **options)
    return (await platform.submit(run)).id


async def ended(platform: Platform, runs: Sequence[UUID], *, within: float = 20) -> list[Any]:
    left = list(runs)

    async def all_ended() -> bool:
        while left and (await platform.history.run(left[-1]))["finished_at"]:
            left.pop()
        return not left

    await eventually(all_ended, within=within)
    return await found(platform, runs)


async def found(platform: Platform, runs: Sequence[UUID]) -> list[Any]:
    return [await platform.history.run(run) for run in runs]


async def served(kitchen: Kitchen, number: int) -> bool:
    return len(kitchen.started) >= number


async def states(platform: Platform, runs: Sequence[UUID]) -> list[str]:
    return [row["state"] for row in await found(platform, runs)]


async def register(platform: Platform, kitchen: Kitchen, limits: Limits | None, **options: Any) -> None:
    """What a worker of the kitchen does when it starts."""
    await kitchen_service(platform.settings, kitchen, limits, **options)._register(platform, {Kitchen: kitchen})


def most_in_any(stretch: float, moments: Sequence[float]) -> int:
    """How many of the moments lie within the same stretch of time, at most."""
    return max(sum(first <= moment <= first + stretch for moment in moments) for first in moments)


async def test_two_workers_never_run_more_of_a_task_than_its_limit(platform, kitchen):
    async with workers(2, platform, kitchen, Limits(concurrency=3)):
        runs = [await order(platform, '{"dish": "soup", "seconds": 0.1}') for _ in range(24)]
        rows = await ended(platform, runs)

    assert {row["state"] for row in rows} == {"completed"}
    assert kitchen.most["cook"] == 3


async def test_two_workers_never_run_more_of_a_key_than_its_limit(platform, kitchen):
    async with workers(2, platform, kitchen, Limits(key="customer", per_key=2)):
        runs = [
            await order(platform, f'{{"dish": "soup", "seconds": 0.1, "customer": "{customer}"}}')
            for _ in range(10)
            for customer in "abc"
        ]
        await ended(platform, runs)

    assert [kitchen.most[f"of {customer}"] for customer in "abc"] == [2, 2, 2]
    assert kitchen.most["cook"] > 2


async def test_two_workers_never_run_more_of_a_domain_than_its_limit(platform, kitchen):
    async with workers(2, platform, kitchen, None, limit=3):
        runs = []
        for _ in range(10):
            runs.append(await order(platform, '{"dish": "soup", "seconds": 0.15}'))
            runs.append(await order(platform, '{"seconds": 0.15}', task="wash"))
        await ended(platform, runs)

    assert kitchen.most["kitchen"] == 3
    # Tasks take turns, too: none of the two was done before the other began.
    order_of_starts = [dish for _, _, dish in kitchen.started]
    assert {"soup", "wash"} == set(order_of_starts[:6])


async def test_a_limited_run_submitted_to_an_idle_domain_starts_at_once(platform, kitchen):
    async with workers(1, platform, kitchen, Limits(concurrency=1)):
        seconds = []
        for _ in range(10):
            (row,) = await ended(platform, [await order(platform, '{"dish": "soup"}')])
            seconds.append((row["started_at"] - row["created_at"]).total_seconds())

    assert sorted(seconds)[4] < 0.2


async def test_the_end_of_a_limited_run_lets_the_next_one_in_at_once(platform, kitchen):
    async with workers(1, platform, kitchen, Limits(concurrency=1)):
        await ended(platform, [await order(platform, '{"dish": "soup"}') for _ in range(10)])

    moments = [at for at, _, _ in kitchen.started]
    # By the second, as without being woken, it would be nine.
    assert max(moments) - min(moments) < 5


async def test_a_rate_is_kept_by_two_workers_over_many_periods(platform, kitchen):
    rate = Rate(10, per=timedelta(seconds=1), burst=3)
    async with workers(2, platform, kitchen, Limits(rate=rate)):
        await ended(platform, [await order(platform, '{"dish": "soup"}') for _ in range(30)])

    moments = [at for at, _, _ in kitchen.started]
    # One more for what a slow machine moves over the edge of a stretch.
    assert most_in_any(0.05, moments) <= 3 + 1
    assert most_in_any(1.0, moments) <= 3 + 10 + 1
    assert 2.6 <= max(moments) - min(moments) < 6


async def test_each_key_has_its_own_rate(platform, kitchen):
    rate = Rate(5, per=timedelta(seconds=1))
    async with workers(1, platform, kitchen, Limits(key="customer", rate_per_key=rate)):
        runs = [await order(platform, f'{{"dish": "soup", "customer": "{c}"}}') for _ in range(6) for c in "ab"]
        await ended(platform, runs)

    for customer in "ab":
        moments = [at for at, who, _ in kitchen.started if who == customer]
        assert most_in_any(0.5, moments) <= 1 + 2 + 1
        assert max(moments) - min(moments) >= 0.95
    assert most_in_any(0.1, [at for at, _, _ in kitchen.started]) >= 2


async def test_what_waited_long_for_a_worker_uses_its_start_when_it_starts(platform, kitchen):
    rate = Rate(2, per=timedelta(seconds=60), burst=2)
    await register(platform, kitchen, Limits(key="customer", rate=rate, rate_per_key=rate))
    runs = [await order(platform, '{"dish": "soup"}') for _ in range(4)]
    admission = platform.ledger.admission

    let_in = await admission.admit("kitchen")
    await let_buckets_fill(platform)
    before = await admission.admit("kitchen")
    await admission.charge("kitchen")
    started = [await platform.ledger.start((run, 1, ADA_S)) for run in runs]
    after = await admission.admit("kitchen")

    assert [each.runs for each in (let_in, before, after)] == [2, 0, 0]
    assert sorted(started) == [False, False, True, True]
    assert 25 < after.next_in <= 30


async def test_a_noisy_key_delays_others_by_no_more_than_a_round(platform, kitchen):
    limits = Limits(concurrency=1, key="customer")
    await register(platform, kitchen, limits)
    noisy = [
        NewRun(id=new_id(), domain="kitchen", task="kitchen.cook", args='{"dish": "soup", "customer": "noisy"}')
        for _ in range(2_000)
    ]
    await platform.submit_many(noisy)

    async with workers(1, platform, kitchen, limits):
        await eventually(lambda: served(kitchen, 20))
        quiet = [await order(platform, f'{{"dish": "egg", "customer": "{customer}"}}') for customer in "az"]
        before = len(kitchen.started)
        await ended(platform, quiet)

    last = max(position for position, (_, customer, _) in enumerate(kitchen.started) if customer in {"a", "z"})
    # One that was let in before, one in the round of the three keys, and the other quiet one.
    assert last - before <= 4


async def test_within_a_key_the_most_urgent_goes_first_but_for_the_turn_of_the_longest_waiting(platform, kitchen):
    await register(platform, kitchen, Limits(key="customer", per_key=1))
    runs = [await order(platform, '{"dish": "soup"}', priority=priority) for priority in (0, 1, 2, 3, 2, 1, 0)]
    let_in = []

    for patient in (False, False, True, False):
        admitted = await platform.ledger.admission.admit("kitchen", patient=patient)
        (row,) = [row for row in await found(platform, runs) if row["state"] == "queued" and not row["gated"]]
        await platform.ledger.steering.cancel(row["id"], ADA)
        let_in.append((admitted.runs, row["priority"]))

    assert let_in == [(1, 3), (1, 2), (1, 0), (1, 2)]


async def test_a_run_that_waits_for_its_next_attempt_gives_its_slot_to_others(platform, kitchen):
    async with workers(1, platform, kitchen, Limits(concurrency=1)):
        waiting = [await order(platform, f'{{"dish": "{dish}"}}') for dish in ("burnt", "frozen")]
        (row,) = await ended(platform, [await order(platform, '{"dish": "soup"}')])

    assert row["state"] == "completed"
    assert await states(platform, waiting) == ["retrying", "queued"]
    assert kitchen.most["cook"] == 1


async def test_the_slot_of_a_lost_worker_is_free_again_when_its_run_is_rescued(platform, kitchen):
    limits, lost = Limits(concurrency=1), new_id()
    await register(platform, kitchen, limits)
    runs = [await order(platform, '{"dish": "soup"}') for _ in range(2)]
    await platform.ledger.admission.admit("kitchen")
    await platform.ledger.enrol(lost, "kitchen", "gone", 1, "0", 1)
    started = [await platform.ledger.start((run, 1, lost)) for run in runs]
    why = await platform.history.awaited_limit(runs[1])
    none_yet = await platform.ledger.admission.admit("kitchen")
    await silence(platform.ledger, lost)

    rescued = await platform.ledger.rescue("kitchen", timedelta(minutes=1), suspicious=3, most=10)
    freed = await platform.ledger.admission.admit("kitchen")
    async with workers(1, platform, kitchen, limits):
        rows = await ended(platform, runs)

    assert started == [True, False]
    assert why == "a limit of kitchen.cook: 1 of 1 runs"
    # What was rescued waits until it is let in again, and the other one has its slot.
    assert (none_yet.runs, rescued.moved, freed.runs) == (0, 1, 1)
    assert [row["state"] for row in rows] == ["completed", "completed"]
    assert kitchen.most["cook"] == 1


@pytest.mark.real("connections")
async def test_limits_hold_when_every_connection_to_the_ledger_breaks(platform, kitchen):
    async with workers(2, platform, kitchen, Limits(concurrency=2)):
        runs = [await order(platform, '{"dish": "soup", "seconds": 0.05}') for _ in range(30)]
        await eventually(lambda: served(kitchen, 5))
        await platform.ledger.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name in ('carillon kitchen', 'carillon wakeups')"
        )
        rows = await ended(platform, runs, within=40)

    assert {row["state"] for row in rows} == {"completed"}
    assert kitchen.most["cook"] == 2


async def test_runs_that_waited_for_limits_go_at_once_when_a_new_version_has_none(platform, kitchen):
    await register(platform, kitchen, Limits(concurrency=1, key="customer", per_key=1))
    runs = [await order(platform, f'{{"dish": "soup", "seconds": -1, "customer": "{n}"}}') for n in range(8)]

    async with workers(1, platform, kitchen, None):
        await eventually(lambda: served(kitchen, 8))
        kitchen.gate.set()
        await ended(platform, runs)

    assert kitchen.most["cook"] == 8


async def test_a_lower_limit_also_holds_for_what_was_let_in_by_the_higher(platform, kitchen):
    await register(platform, kitchen, Limits(concurrency=8))
    runs = [await order(platform, '{"dish": "soup", "seconds": 0.02}') for _ in range(12)]
    let_in = await platform.ledger.admission.admit("kitchen")

    async with workers(1, platform, kitchen, Limits(concurrency=2)):
        await ended(platform, runs)

    assert let_in.runs == 8
    assert kitchen.most["cook"] == 2


async def test_what_waited_without_limits_starts_without_when_there_are_some(platform, kitchen):
    await register(platform, kitchen, None)
    before = [await order(platform, '{"dish": "soup", "seconds": -1}') for _ in range(4)]

    async with workers(1, platform, kitchen, Limits(concurrency=1)):
        after = [await order(platform, '{"dish": "soup", "seconds": -1}') for _ in range(3)]
        await eventually(lambda: served(kitchen, 5))
        waiting = await states(platform, after)
        kitchen.gate.set()
        await ended(platform, [*before, *after])

    assert sorted(waiting) == ["queued", "queued", "running"]


async def test_a_run_that_is_cancelled_or_paused_after_it_was_let_in_gives_its_slot_away(platform, kitchen):
    await register(platform, kitchen, Limits(concurrency=2))
    cancelled, paused, third, fourth = [await order(platform, '{"dish": "soup"}') for _ in range(4)]
    let_in = await platform.ledger.admission.admit("kitchen")
    await platform.ledger.steering.cancel(cancelled, ADA)
    await platform.ledger.steering.pause_run(paused, ADA)

    more = await platform.ledger.admission.admit("kitchen")
    await platform.ledger.steering.resume_run(paused, ADA)
    stale = await platform.ledger.start((paused, 1, new_id()))

    assert (let_in.runs, more.runs, stale) == (2, 2, False)
    assert await platform.history.awaited_limit(paused) == "a limit of kitchen.cook: 2 of 2 runs"
    assert [await platform.history.awaited_limit(run) for run in (third, fourth)] == [None, None]


async def test_a_held_task_gives_the_slots_of_its_domain_to_the_others(platform, kitchen):
    await register(platform, kitchen, None, limit=2)
    cooked = [await order(platform, '{"dish": "soup"}') for _ in range(2)]
    await platform.ledger.admission.admit("kitchen")
    washed = [await order(platform, '{"seconds": 0}', task="wash") for _ in range(2)]
    await platform.ledger.steering.pause("kitchen.cook", ADA)

    async with workers(1, platform, kitchen, None, limit=2):
        await ended(platform, washed)
        held = await states(platform, cooked)
        await platform.ledger.steering.resume("kitchen.cook", ADA)
        await ended(platform, cooked)

    assert held == ["queued", "queued"]


async def test_what_expires_while_it_waits_for_limits_never_runs(platform, kitchen):
    limits = Limits(concurrency=1)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    async with workers(1, platform, kitchen, limits):
        slow = await order(platform, '{"dish": "stew", "seconds": -1}')
        late = await order(platform, '{"dish": "late"}', expires_at=soon)
        (row,) = await ended(platform, [late])
        kitchen.gate.set()
        await ended(platform, [slow])

    assert row["state"] == "cancelled"
    assert "late" not in [dish for _, _, dish in kitchen.started]


async def test_delayed_runs_that_are_limited_start_when_they_are_due(platform, kitchen):
    async with workers(1, platform, kitchen, Limits(concurrency=5)):
        due = [datetime.now(UTC) + timedelta(seconds=1 + 0.37 * number) for number in range(5)]
        runs = [await order(platform, '{"dish": "soup"}', run_at=moment) for moment in due]
        rows = await ended(platform, runs)

    late = sorted(row["started_at"] - moment for row, moment in zip(rows, due, strict=True))
    assert late[0] >= timedelta(0)
    # The middle one: other work of this machine may delay some. To the moment it is in test_waking.py, by a held clock.
    assert late[2] < timedelta(seconds=1)


async def test_a_run_says_for_which_limit_it_waits(platform, kitchen):
    by_key = Limits(concurrency=5, key="customer", per_key=1, rate=Rate(1, timedelta(hours=1), burst=2))
    await register(platform, kitchen, by_key, limit=3)

    async def why(customer: str) -> str | None:
        run = await order(platform, f'{{"dish": "soup", "customer": "{customer}"}}')
        await platform.ledger.admission.admit("kitchen")
        return await platform.history.awaited_limit(run)

    reasons = [await why(customer) for customer in ("acme", "acme", "bell", "cade")]
    washed = [await order(platform, '{"seconds": 0}', task="wash") for _ in range(2)]
    await platform.ledger.admission.admit("kitchen")

    assert reasons[0] is None
    assert reasons[1] == "a limit of kitchen.cook: 1 of 1 runs with customer=acme"
    assert reasons[2] is None
    assert reasons[3].startswith("the rate of kitchen.cook: 1 starts in 3600 s, the next in 3")
    assert await platform.history.awaited_limit(washed[1]) == "a limit of the domain kitchen: 3 of 3 runs"


async def test_a_key_may_lie_within_an_argument_be_long_or_be_missing(platform, kitchen):
    await register(platform, kitchen, Limits(key="customer.name", per_key=1))
    whole = '{"name": {"b": [1, true], "a": "acme"}}'
    names = ['{"name": "acme"}', '{"name": 7}', f'{{"name": "{"x" * 5000}"}}', whole, '{"other": 1}', '"text"', "null"]

    runs = [await order(platform, f'{{"dish": "soup", "customer": {name}}}') for name in names]

    gates = [row["gate"] for row in await found(platform, runs)]
    assert gates == ["acme", "7", gates[2], '{"a": "acme", "b": [1, true]}', "", "", ""]
    assert gates[2].startswith("x" * 40 + "#")
    assert len(gates[2]) == 40 + 1 + 32


async def test_limits_that_change_are_audited(platform, kitchen):
    await register(platform, kitchen, Limits(concurrency=2))
    await register(platform, kitchen, Limits(concurrency=3), limit=5)

    ((of_domain,), (of_task,)) = [
        await platform.audit.page(AuditSearch(subject=subject, limit=1)) for subject in ("kitchen", "kitchen.cook")
    ]
    assert [of_domain["action"], of_task["action"]] == ["queue.limit_changed", "task.policy_changed"]
    assert of_domain["details"] == {"before": None, "after": 5}
    assert of_task["details"]["before"]["limits"] == {"concurrency": 2}
    assert of_task["details"]["after"]["limits"] == {"concurrency": 3}


@pytest.mark.real("blocks that a statement reads")
@pytest.mark.parametrize("runs", [2_000, 20_000])
async def test_what_a_look_reads_does_not_grow_with_the_runs_that_wait(platform, kitchen, runs):
    await register(platform, kitchen, Limits(concurrency=10, key="customer", per_key=1))
    pool = platform.ledger.pool
    await pool.execute(
        """insert into carillon.runs_live (id, domain, task, state, args, gate, gated, priority)
           select gen_random_uuid(), 'kitchen', 'kitchen.cook', 'queued', '{}', 'key ' || n % 2000, true, n % 4
           from generate_series(1, $1::int) n""",
        runs,
    )
    await platform.ledger.admission.admit("kitchen")
    cursor = await pool.fetchval("select last_gate from carillon.turns")
    admit = ("kitchen", "kitchen.cook", 5, cursor, 1000, 1, None, None, False, None, None)

    read = [
        await blocks_read(platform, statements.LOOK, "kitchen"),
        await blocks_read(platform, statements.ADMIT, *admit),
        await blocks_read(platform, statements.NEXT, "kitchen"),
    ]

    assert max(read) < 600, read


async def blocks_read(platform: Platform, statement: str, *arguments: object) -> int:
    """Blocks of 8 KiB that a statement looks at, with those it looks at twice; what it does is taken back."""
    async with platform.ledger.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        plan = await connection.fetchval(f"explain (analyze, buffers, format json) {statement}", *arguments)
        await transaction.rollback()
    top = orjson.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (Limits, "these limits limit nothing"),
        (lambda: Limits(key="customer"), "these limits limit nothing"),
        (lambda: Limits(concurrency=0), "concurrency is 0; it is a whole number from 1"),
        (lambda: Limits(concurrency=True), "concurrency is True"),
        (lambda: Limits(per_key=2), 'name an argument, such as key="customer"'),
        (lambda: Limits(key="customer..name", per_key=1), "'customer..name' is no path"),
        (lambda: Limits(key=7, per_key=1), "7 is no path"),
        (lambda: Limits(rate=5), "rate is 5; write Rate"),
        (lambda: Rate(0, timedelta(seconds=1)), "number is 0"),
        (lambda: Rate(1, timedelta(0)), "per is a timedelta, more than nothing"),
        (lambda: Rate(1, 60), "per is a timedelta, more than nothing"),
        (lambda: Rate(1, timedelta(seconds=1), burst=0), "burst is 0"),
        (
            lambda: kitchen_service(None, Kitchen(), Limits(key="guest", per_key=1)),
            "which is no argument of it; it takes",
        ),
        (lambda: kitchen_service(None, Kitchen(), limit=0), "limit is 0"),
    ],
)
def test_limits_that_could_not_be_kept_are_refused_in_words(declare, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        declare()


def test_a_rate_is_even_unless_it_names_a_burst():
    assert Rate(100, timedelta(minutes=1)).most_at_once == 1
    assert Rate(1_000, timedelta(seconds=1)).most_at_once == 100
    assert Rate(100, timedelta(minutes=1), burst=100).most_at_once == 100
