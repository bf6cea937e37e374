"""Batches within one task: which items succeeded, how their run ends, and what stops the rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from carillon import Partial, Retry, Run, Tasks
from carillon.errors import BatchFailedError, Cancel, ConfigurationError, InvalidArgumentsError, PermanentError, Snooze
from carillon.policies import Batch, Policies, Summary
from carillon.telemetry.metrics import Metrics
from carillon.testing import InProcess, Rehearsal
from carillon.testing.memory import MemoryPlatform

MAIL = Batch("mail", need=0.75, concurrency=3)
ERRORS = {
    "bounced": PermanentError("nobody of that name"),
    "busy": ConnectionError("try later"),
    "snooze": Snooze(60),
    "cancel": Cancel("nobody wants it"),
    "inner": asyncio.CancelledError(),
}


class Post:
    """Delivers what has no error's name, and sees how much at once."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.now = 0
        self.most = 0

    async def deliver(self, item: str) -> str:
        self.tried.append(item)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            # Lets the others begin.
            await asyncio.sleep(0)
            if item in ERRORS:
                raise ERRORS[item]
            if item == "slow":
                await asyncio.sleep(MAIL.timeout.total_seconds() * 2)
            return item.upper()
        finally:
            self.now -= 1


@pytest.fixture
def policies(tmp_path) -> Policies:
    from carillon.settings import PlatformSettings

    return Policies(MemoryPlatform(PlatformSettings(storage_url=str(tmp_path)), name="test"), Metrics())


async def delivered(policies: Policies, items: str, batch: Batch = MAIL, **options: Any) -> Summary[str]:
    return await policies.batch(batch, Post().deliver, items.split(), **options)


async def test_what_succeeds_whole_is_no_part(policies):
    summary = await delivered(policies, "a b c")

    assert summary.ended() == {
        "total": 3,
        "successful": [{"position": at, "value": value} for at, value in enumerate("ABC")],
        "failed": [],
        "skipped": [],
    }


async def test_nothing_to_do_is_done(policies):
    assert (await delivered(policies, "")).ended()["total"] == 0


async def test_what_fails_is_told_with_its_position_and_reason_and_enough_is_a_part(policies):
    ended = (await delivered(policies, "a bounced c d")).ended()

    assert isinstance(ended, Partial)
    assert ended.value["failed"] == [
        {"position": 1, "reason": "PermanentError: nobody of that name", "is_permanent": True}
    ]
    assert [each["value"] for each in ended.value["successful"]] == ["A", "C", "D"]
    assert ended.reason == "3 of 4 succeeded; 1 failed (at 1: PermanentError: nobody of that name)"
    figures = policies._metrics.registry
    for outcome, number in (("successful", 3), ("failed", 1), ("skipped", 0)):
        labels = {"batch": "mail", "outcome": outcome}
        assert figures.get_sample_value("carillon_batch_items_total", labels) == number


@pytest.mark.parametrize(
    ("items", "need", "enough"),
    [
        ("a b c busy", 0.75, True),
        ("a b busy", 0.75, False),
        ("a b busy", 2 / 3, True),
        ("a " * 7 + "busy " * 93, 0.07, True),
        ("busy busy", 0.01, False),
        ("a busy", 1, False),
    ],
)
async def test_the_least_share_decides(policies, items, need, enough):
    summary = await delivered(policies, items, Batch("mail", need=need))

    if enough:
        assert isinstance(summary.ended(), Partial)
    else:
        with pytest.raises(BatchFailedError, match=rf"at least {summary.least} had to"):
            summary.ended()


async def test_what_no_second_try_can_mend_is_not_tried_again(policies):
    with pytest.raises(PermanentError, match="0 of 2 succeeded"):
        (await delivered(policies, "bounced bounced")).ended()
    with pytest.raises(BatchFailedError):
        (await delivered(policies, "bounced busy")).ended()


async def test_what_is_required_must_succeed_whatever_the_share(policies):
    summary = await delivered(policies, "a b c d e bounced", required=lambda item: item in {"a", "bounced"})

    assert list(summary.missing) == [5]
    with pytest.raises(PermanentError, match="at least 5 had to, and so had those at 5"):
        summary.ended()


async def test_after_so_many_failures_the_rest_is_skipped(policies):
    one_by_one = Batch("mail", need=0.1, concurrency=1, stop_after=2)
    summary = await delivered(policies, "a busy b busy c d", one_by_one)
    ended = summary.ended()

    assert list(summary.skipped) == [4, 5]
    assert isinstance(ended, Partial)
    assert ended.reason.startswith("2 of 6 succeeded, 2 skipped; 2 failed (at 1: ConnectionError: try later")


async def test_so_many_items_at_once_and_each_once(policies):
    post, items = Post(), [str(number) for number in range(100)]
    summary = await policies.batch(MAIL, post.deliver, items)

    assert post.most == MAIL.concurrency
    assert Counter(post.tried) == Counter(items)
    assert [done.value for done in summary.successful] == items


@pytest.mark.parametrize(("word", "kind"), [("snooze", Snooze), ("cancel", Cancel)])
async def test_what_an_item_says_of_the_run_holds_for_the_run(policies, word, kind):
    post = Post()
    with pytest.raises(kind):
        await policies.batch(Batch("mail", need=1, concurrency=1), post.deliver, ["a", word, "b"])

    assert post.tried == ["a", word]


async def test_an_item_that_is_cancelled_from_within_has_failed(policies):
    summary = await delivered(policies, "a inner b")

    assert [(failed.position, failed.reason) for failed in summary.failed] == [(1, "CancelledError")]


async def test_too_many_items_are_refused_before_the_first(policies):
    post = Post()
    with pytest.raises(InvalidArgumentsError, match="10,001 items, the most is 10,000; submit one run for each"):
        await policies.batch(MAIL, post.deliver, ["a"] * 10_001)

    assert post.tried == []


def mail_tasks() -> Tasks:
    tasks = Tasks("post")

    @tasks.task(retry=Retry(attempts=2, base=timedelta(seconds=1), cap=timedelta(seconds=1)))
    async def send(items: list[str], *, policies: Policies, post: Post) -> dict[str, Any] | Partial[dict[str, Any]]:
        """Deliver. Safe to run twice: it counts."""
        return (await policies.batch(MAIL, post.deliver, items)).ended()

    @tasks.task(timeout=timedelta(seconds=5), retry=Retry(attempts=1))
    async def send_in_time(*, policies: Policies, post: Post, run: Run) -> None:
        """Deliver what takes too long. Safe to run twice: it counts."""
        await policies.batch(MAIL, post.deliver, ["slow"] * 5)

    return tasks


async def test_a_run_ends_as_its_batch_did():
    tasks, post = mail_tasks(), Post()
    send = tasks.declared["post.send"]
    async with Rehearsal(tasks, resources={Post: post}) as rehearsal:
        whole, part, failed, hopeless, slow = [
            await send.kiq(items.split())
            for items in ("a b", "a b c bounced", "a busy", "a bounced", "a b c slow")
        ]  # fmt: skip
        await rehearsal.advance(timedelta(minutes=3))
        ends = [rehearsal.run(run) for run in (whole, part, failed, hopeless, slow)]

    assert [(end.state, len(end.attempts)) for end in ends] == [
        ("completed", 1), ("partial", 1), ("failed", 2), ("failed", 1), ("partial", 1)
    ]  # fmt: skip
    assert ends[1].result["failed"][0]["position"] == 3
    assert (ends[2].error["type"], ends[3].error["type"]) == ("BatchFailedError", "PermanentError")
    assert ends[4].result["failed"] == [{"position": 3, "reason": "TimeoutError", "is_permanent": False}]


async def test_a_single_attempt_in_the_test_s_own_process_has_policies():
    tasks = mail_tasks()
    ended = await InProcess(tasks, {Post: Post()}).run(tasks.declared["post.send"], items=["a", "b", "c", "busy"])

    assert isinstance(ended, Partial)


async def test_a_run_whose_time_is_over_leaves_no_item_behind():
    tasks, post = mail_tasks(), Post()
    async with Rehearsal(tasks, resources={Post: post}) as rehearsal:
        run = await tasks.declared["post.send_in_time"].kiq()
        await rehearsal.advance(timedelta(seconds=6))
        ended = rehearsal.run(run)

    assert (ended.state, ended.error["type"]) == ("failed", "TimeoutError")
    assert (post.now, len(post.tried)) == (0, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "no batch can be named ''"),
        ({"need": 0}, "need=0; it is a share"),
        ({"need": 1.1}, "need=1.1; it is a share"),
        ({"need": True}, "need=True; it is a share"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"stop_after": -1}, "stop_after is -1"),
        ({"timeout": 5}, "timeout=5; it must be a timedelta"),
    ],
)
def test_a_batch_that_could_not_be_processed_is_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        Batch(**{"name": "mail", "need": 0.5, **options})
