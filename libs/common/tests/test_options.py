"""Options of `.kiq()`: typed where they are given, the same on the other side, on both transports and the twin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar
from uuid import UUID

import pytest
from shop import Shop, shop_service
from taskiq.exceptions import SendTaskError

import carillon
from carillon import After, Priority, Service, Task, Tasks, Unique
from carillon.cloudevents import Envelope
from carillon.contracts import BackupCompleted, Event
from carillon.errors import ConfigurationError, InvalidArgumentsError, UniqueConflictError
from carillon.options import after_in, callback_url_in, check_labels, labels_of, unique_in
from carillon.platform import Platform
from carillon.settings import PlatformSettings
from carillon.testing import eventually, running

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
    noon = datetime.now(UTC).replace(microsecond=0) + 20 * HOUR

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
        (check_labels, {"delay": "soon"}),
        (check_labels, {"delay": "nan"}),
        (check_labels, {"delay": True}),
        (check_labels, {"run_at": "tomorrow"}),
        (check_labels, {"idempotency_key": "a\0b"}),
    ],
)
def test_a_label_that_is_no_option_is_refused(read, labels):
    with pytest.raises(InvalidArgumentsError):
        read(labels)


NOON = datetime.now(UTC) + 20 * HOUR
YEARS = timedelta(days=366)
RUN = UUID(int=7)
MISREAD = [
    ({"delay": 5}, r"^delay must be a timedelta, such as timedelta\(seconds=30\), and not 5$"),
    ({"delay": -HOUR}, r"^delay must be from nothing to 365 days"),
    ({"delay": YEARS}, r"^delay must be from nothing to 365 days"),
    ({"delay": HOUR, "run_at": NOON}, r"^delay must not be given together with run_at$"),
    ({"run_at": "2099-01-01"}, r"^run_at must be a datetime with a time zone, and not '2099-01-01'"),
    ({"run_at": NOON.replace(tzinfo=None)}, r"^run_at must name a time zone"),
    ({"run_at": NOON + YEARS}, r"^run_at must lie between .* and not '"),
    ({"run_at": NOON - YEARS}, r"^run_at must lie between"),
    ({"delay": 2 * HOUR, "expires": HOUR}, r"^expires must lie between"),
    ({"run_at": NOON, "expires": NOON - HOUR}, r"^expires must lie between"),
    ({"delay": 2 * HOUR, "deadline": HOUR}, r"^deadline must lie between"),
    ({"deadline": NOON - 40 * HOUR}, r"^deadline must lie between"),
    ({"expires": 60}, r"^expires must be a timedelta, such as timedelta\(hours=1\), or a datetime, and not 60$"),
    ({"deadline": -HOUR}, r"^deadline must be from nothing"),
    ({"priority": "first"}, r"^priority must be one of low, normal, high, urgent, and not 'first'$"),
    ({"priority": "HIGH"}, r"^priority must be one of"),
    ({"priority": 4}, r"^priority must be one of"),
    ({"priority": True}, r"^priority must be one of"),
    ({"idempotency_key": "k" * 256}, r"^idempotency_key must be a text of 1 to 255 characters"),
    ({"idempotency_key": ""}, r"^idempotency_key must be a text of 1 to 255"),
    ({"idempotency_key": 17}, r"^idempotency_key must be a text"),
    ({"idempotency_key": "a\0b"}, r"^idempotency_key must be free of control characters .* and not 'a\\x00b'$"),
    ({"idempotency_key": "\ud800"}, r"^idempotency_key must be free of"),
    ({"unique": "k"}, r"^unique must be Unique\(...\), and not 'k'$"),
    ({"after": RUN}, r"^after must be After\(...\)"),
    ({"callback_url": "ftp://example.org"}, r"^callback_url must begin with http:// or https://"),
    ({"callback_url": 7}, r"^callback_url must begin with"),
    ({"dealy": HOUR}, r"^there is no option 'dealy'; there are priority, delay, run_at"),
]


@pytest.mark.parametrize(("options", "told"), MISREAD)
def test_an_option_that_would_be_misread_is_refused_at_the_call_with_what_it_may_be(add_offline, options, told):
    with pytest.raises(InvalidArgumentsError, match=told):
        add_offline.options(**options)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (lambda: Unique(until="end"), r"^unique.until must be one of started, ended, and not 'end'$"),
        (lambda: Unique(on_conflict="raise"), r"^unique.on_conflict must be one of keep, replace, reject"),
        (lambda: Unique(window=-HOUR), r"^unique.window must be from nothing to 365 days"),
        (lambda: Unique(window=60), r"^unique.window must be a timedelta"),
        (lambda: Unique(key=""), r"^unique.key must be a text of 1 to 255"),
        (lambda: Unique(key="k" * 256), r"^unique.key must be a text of 1 to 255"),
        (lambda: Unique(key="a\nb"), r"^unique.key must be free of control characters"),
        (lambda: Unique(key="\udfff"), r"^unique.key must be free of"),
        (lambda: After(runs=[RUN], when="finished"), r"^after.when must be one of succeeded, ended, any"),
        (lambda: After(runs=[RUN], otherwise="continue"), r"^after.otherwise must be one of cancel, run"),
        (lambda: After(runs=[RUN], delay=YEARS), r"^after.delay must be from nothing to 365 days"),
        (lambda: After(runs=[RUN], delay=-HOUR), r"^after.delay must be from nothing"),
        (lambda: After(runs=[RUN], delay=5), r"^after.delay must be a timedelta"),
        (lambda: After(runs=[]), r"^after.runs must be 1 to 1,000 runs, and not 0$"),
        (lambda: After(runs=[RUN] * 1_001), r"^after.runs must be 1 to 1,000 runs, and not 1001$"),
        (lambda: After(runs=str(RUN)), r"^after.runs must be ids of runs"),
        (lambda: After(runs=RUN), r"^after.runs must be ids of runs"),
    ],
)
def test_a_condition_that_would_be_misread_cannot_be_made(shape, told):
    with pytest.raises(InvalidArgumentsError, match=told):
        shape()


async def test_the_same_holds_for_labels_that_are_given_past_the_options(add):
    with pytest.raises(SendTaskError) as refused:
        await add.kicker().with_labels(delay=60, run_at=NOON.isoformat()).kiq(1)

    assert str(refused.value.__cause__) == "delay must not be given together with run_at"


async def test_the_longest_keys_and_spans_are_kept(platform, add):
    key = "\N{GRINNING FACE}" * 255
    most = timedelta(days=365)

    task = await add.options(idempotency_key=key, unique=Unique(key=key, window=most), delay=most, deadline=None).kiq(1)

    row = await platform.history.run(UUID(task.task_id))
    assert (row["idempotency_key"], row["unique_key"]) == (key, key)


async def test_what_may_start_now_is_given_to_a_worker_at_once(platform, add):
    begun = [await add.options(delay=timedelta(0)).kiq(1), await add.kiq(1)]

    rows = [await platform.history.run(UUID(task.task_id)) for task in begun]
    assert [row["run_at"] == row["created_at"] for row in rows] == [True, True]


class Placed(Event):
    """An order was placed."""

    type: ClassVar[str] = "shop.placed.v1"
    subject_field: ClassVar[str] = "order"

    order: str


async def test_what_a_task_was_declared_with_is_on_every_run_of_it(platform):
    tasks = Tasks("post")

    @tasks.task(labels={"team": "blue", "tier": "gold", "priority": "high"})
    async def send(order: str) -> None:
        """Send. Safe to run twice: it does nothing."""

    @tasks.hears(Placed, labels={"team": "blue", "priority": "low"})
    async def thank(event: Placed) -> None:
        """Thank. Safe to run twice: it does nothing."""

    async with running(Service(name="post", settings=platform.settings, tasks=tasks), platform):
        sent = await send.options(labels={"tier": "tin"}).kiq("o-1")
        envelope = Envelope.of(Placed(order="o-2"), source="/shop")
        await platform.say(envelope, actor="a test")
        await eventually(partial(platform.history.answers_to, envelope.key))

    (heard,) = await platform.history.answers_to(envelope.key)
    rows = [await platform.history.run(run) for run in (UUID(sent.task_id), heard["id"])]
    assert [(row["labels"], row["priority"]) for row in rows] == [
        ({"team": "blue", "tier": "tin"}, Priority.HIGH), ({"team": "blue"}, Priority.LOW),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"Customer": "7"}, "labels must be named in lower case"),
        ({"cc": "7"}, "labels must be named in lower case, and not like what steers"),
        ({"customer": "x" * 201}, "labels.customer must have at most 200 characters"),
        ({"customer": "a\0"}, "labels.customer must have at most 200 characters, none of them a control"),
        ({f"l{n}": "x" for n in range(21)}, "labels must have at most 20 members, and not 21"),
    ],
)
async def test_a_label_that_nobody_could_search_by_is_refused(add, labels, told):
    with pytest.raises(InvalidArgumentsError, match=told):
        add.options(labels=labels)
    with pytest.raises(SendTaskError) as refused:
        await add.kicker().with_labels(**labels).kiq(1)
    assert told in str(refused.value.__cause__)


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
