"""Options of `.kiq()`: typed where they are given, the same on the other side, on both transports and the twin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from shop import Shop, shop_service
from taskiq.exceptions import SendTaskError

import carillon
from carillon import After, Priority, Task, Tasks, Unique
from carillon.contracts import BackupCompleted
from carillon.errors import ConfigurationError, InvalidArgumentsError, UniqueConflictError
from carillon.options import after_in, callback_url_in, labels_of, unique_in
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import running

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.real("connections")


@pytest.fixture
async def add(settings: PlatformSettings, opens: Callable[..., Platform]) -> AsyncIterator[Task[..., int]]:
    tasks = Tasks("shop")

    @tasks.task()
    async def add(a: int) -> int:
        """Add. Safe to run twice: it only returns."""
        return a

    async with carillon.connect(tasks, settings=settings, opens=opens):
        yield add


async def test_every_option_of_a_submit_is_the_run_s(platform, add):
    task = await add.options(
        priority="urgent",
        delay=HOUR,
        expires=2 * HOUR,
        deadline=3 * HOUR,
        callback_url="https://example.org/ended",
        unique=Unique(key="k", until="started", window=HOUR),
        labels={"customer": "7"},
    ).kiq(1)

    row = await platform.history.run(UUID(task.task_id))
    later = [row[name] - datetime.now(UTC) for name in ("run_at", "expires_at", "deadline_at")]
    assert [round(each / HOUR, 1) for each in later] == [1.0, 2.0, 3.0]
    assert (row["priority"], row["labels"], row["unique_key"]) == (Priority.URGENT, {"customer": "7"}, "k")
    assert (row["callback_url"], row["args"]) == ("https://example.org/ended", {"a": 1})


async def test_moments_are_options_as_well_as_spans(platform, add):
    noon = datetime(2099, 1, 1, 12, tzinfo=UTC)

    task = await add.options(run_at=noon, expires=noon + HOUR, deadline=noon + 2 * HOUR, priority=Priority.LOW).kiq(1)

    row = await platform.history.run(UUID(task.task_id))
    assert (row["run_at"], row["expires_at"], row["deadline_at"]) == (noon, noon + HOUR, noon + 2 * HOUR)
    assert row["priority"] == Priority.LOW


async def test_a_submit_with_a_taken_key_gives_back_the_run_that_has_it(add):
    first = await add.options(unique=Unique(), delay=HOUR).kiq(1)

    same, other = [await add.options(unique=Unique(), delay=HOUR).kiq(a) for a in (1, 2)]

    assert first.task_id == same.task_id != other.task_id


async def test_what_the_owner_says_of_uniqueness_holds_where_a_submit_says_nothing(settings, opens):
    tasks = Tasks("shop")

    @tasks.task(unique=Unique())
    async def add(a: int) -> int:
        """Add. Safe to run twice: it only returns."""
        return a

    async with carillon.connect(tasks, settings=settings, opens=opens):
        first = await add.options(delay=HOUR).kiq(1)
        same, *together = [await add.options(delay=HOUR).kiq(1), *await add.kiq_many([{"a": 1}, {"a": 2}])]
        apart = await add.options(unique=Unique(key="k")).kiq(1)

    assert [one.task_id for one in (same, together[0])] == [first.task_id] * 2
    assert len({one.task_id for one in (first, together[1], apart)}) == 3


def test_what_answers_events_is_not_unique_for_each_event_is_one_run_already():
    tasks = Tasks("shop")

    with pytest.raises(ConfigurationError, match="leave out `unique`"):

        @tasks.hears(BackupCompleted, unique=Unique())
        async def note(event: BackupCompleted) -> None:
            """Note. Safe to hear twice: it does nothing."""


async def test_a_submit_with_a_taken_key_is_refused_where_that_is_wished(platform, add):
    unique = Unique(key="k", on_conflict="reject")
    first = await add.options(unique=unique, delay=HOUR).kiq(1)

    with pytest.raises(SendTaskError) as refused:
        await add.options(unique=unique, delay=HOUR).kiq(2)

    assert isinstance(refused.value.__cause__, UniqueConflictError)
    assert str(refused.value.__cause__.run) == first.task_id
    counts = await platform.history.count_by_state(datetime.now(UTC) - HOUR)
    assert sum(row["count"] for row in counts) == 1


async def test_a_run_comes_after_what_was_submitted_before(platform, settings, opens):
    shop = Shop()
    service = shop_service(settings, shop)
    async with carillon.connect(service.tasks, settings=settings, opens=opens):
        declared = service.tasks.declared
        first = await declared["shop.add"].kiq(1)
        bad = await declared["shop.refuse"].kiq("never")
        last = await declared["shop.add"].options(after=After.of(first, bad, when="ended")).kiq(3)
        waits = (await platform.history.run(UUID(last.task_id)))["state"]
        async with running(service, platform):
            result = await last.wait_result(timeout=20)

    assert (waits, result.return_value) == ("pending", 5)


async def test_an_idempotency_key_meets_its_own_run_and_no_conflict(add):
    options = {"unique": Unique(key="k", on_conflict="reject"), "idempotency_key": "once", "delay": HOUR}

    first, again = [await add.options(**options).kiq(1) for _ in range(2)]

    assert first.task_id == again.task_id


def test_what_has_a_shape_is_the_same_on_the_other_side():
    unique = Unique(key="k", until="started", window=timedelta(seconds=1.5), on_conflict="replace")
    after = After(runs=[UUID(int=7)], when="any", otherwise="run", delay=timedelta(seconds=3))

    labels = {name: str(value) for name, value in labels_of({"unique": unique, "after": after}).items()}

    assert (unique_in(labels), after_in(labels)) == (unique, after)
    assert (unique_in({}), after_in({})) == (None, None)


@pytest.mark.parametrize(
    ("read", "labels"),
    [
        (unique_in, {"unique": "customer-7"}),
        (unique_in, {"unique": "[]"}),
        (unique_in, {"unique": '{"colour": "red"}'}),
        (unique_in, {"unique": '{"window": "long"}'}),
        (after_in, {"after": "{}"}),
        (after_in, {"after": '{"runs": ["x"]}'}),
        (after_in, {"after": '{"runs": 7}'}),
        (callback_url_in, {"callback_url": "file:///etc/passwd"}),
        (callback_url_in, {"callback_url": "http://user:word@example.org"}),
    ],
)
def test_a_label_that_is_no_option_is_refused(read, labels):
    with pytest.raises(InvalidArgumentsError):
        read(labels)


def test_an_option_is_no_label(add_offline):
    with pytest.raises(InvalidArgumentsError, match="priority cannot be among the labels"):
        add_offline.options(labels={"priority": "high"})


@pytest.fixture
def add_offline() -> Task[..., int]:
    tasks = Tasks("shop")

    @tasks.task()
    async def add(a: int) -> int:
        """Add. Safe to run twice: it only returns."""
        return a

    return add
