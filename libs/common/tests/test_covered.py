"""What an idempotency key stands for beside task and arguments, on both transports and the twin."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from carillon.errors import IdempotencyConflictError
from carillon.ids import keyed_id, new_id
from carillon.ledger.records import After, NewRun, Priority, Unique
from carillon.platform import Platform

HOUR = timedelta(hours=1)
URL = "https://example.org/ended"
RUN = UUID(int=7)


def keyed(**options: Any) -> NewRun:
    given = {"domain": "shop", "task": "shop.add", "args": '{"a": 1}', "run_at": datetime.now(UTC) + 20 * HOUR}
    return NewRun(id=keyed_id("shop.add", "k"), idempotency_key="k", **given | options)


async def known(platform: Platform) -> UUID:
    """A run that another can wait for."""
    run = NewRun(id=new_id(), domain="shop", task="shop.add", args='{"a": 2}')
    return (await platform.submit(run)).id


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"callback_url": URL}),
        ({"callback_url": URL}, {}),
        ({"callback_url": URL}, {"callback_url": f"{URL}/elsewhere"}),
        ({}, {"unique": Unique(key="u")}),
        ({"unique": Unique(key="u")}, {}),
        ({"unique": Unique(key="u")}, {"unique": Unique(key="v")}),
        ({}, {"after": {}}),
        ({"after": {}}, {}),
        ({"after": {}}, {"after": {"when": "ended"}}),
        ({"after": {}}, {"after": {"otherwise": "run"}}),
        ({"callback_url": URL}, {"after": {}}),
    ],
)
async def test_one_key_for_what_does_or_tells_something_else_is_a_conflict(platform, first, second):
    need = await known(platform)
    runs = [
        keyed(**options | ({"after": After(runs=[need], **options["after"])} if "after" in options else {}))
        for options in (first, second)
    ]
    await platform.submit(runs[0])

    with pytest.raises(IdempotencyConflictError, match="other arguments, or another after, callback_url or unique key"):
        await platform.submit(runs[1])
    with pytest.raises(IdempotencyConflictError, match="other arguments, or another after, callback_url or unique key"):
        await platform.submit_many([runs[1]])

    row = await platform.history.run(runs[0].id)
    assert (row["callback_url"], row["unique_key"]) == (
        runs[0].callback_url, runs[0].unique and runs[0].unique.key,
    )  # fmt: skip


async def test_two_of_one_batch_that_share_a_key_and_differ_in_who_is_told_are_refused(platform):
    with pytest.raises(IdempotencyConflictError) as refused:
        await platform.submit_many([keyed(), keyed(callback_url=URL)])

    assert refused.value.positions == (1,)
    assert await platform.history.run(keyed().id) is None


async def test_another_need_under_one_key_is_a_conflict_and_the_same_ones_in_another_order_are_not(platform):
    needs = [await known(platform), await known(platform)]
    first = await platform.submit(keyed(after=After(runs=needs)))

    again = await platform.submit(keyed(after=After(runs=[*reversed(needs), needs[0]])))
    with pytest.raises(IdempotencyConflictError):
        await platform.submit(keyed(after=After(runs=needs[:1])))

    assert (again.id, again.created) == (first.id, False)


@pytest.mark.parametrize(
    "other",
    [
        {"run_at": None},
        {"expires_at": datetime.now(UTC) + 40 * HOUR},
        {"deadline_at": datetime.now(UTC) + 40 * HOUR},
        {"priority": Priority.URGENT},
        {"labels": {"customer": "7"}},
        {"unique": Unique()},
        {"actor": "another"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_times_priority_labels_and_what_the_arguments_say_may_differ_and_the_first_ones_hold(platform, other):
    first = await platform.submit(keyed())
    before = await platform.history.run(first.id)

    again = await platform.submit(keyed(**other))
    (together,) = await platform.submit_many([keyed(**other)])

    assert [(one.id, one.created) for one in (again, together)] == [(first.id, False)] * 2
    assert await platform.history.run(first.id) == before


async def test_the_span_and_the_policy_of_a_condition_may_differ(platform):
    need = await known(platform)
    whole = {"callback_url": URL, "unique": Unique(key="u", window=HOUR), "after": After(runs=[need], delay=HOUR)}
    other = whole | {"unique": Unique(key="u", until="started", on_conflict="reject"), "after": After(runs=[need])}

    first, again = await platform.submit(keyed(**whole)), await platform.submit(keyed(**other))

    assert (again.id, again.created) == (first.id, False)


@pytest.mark.real("the digests that PostgreSQL keeps")
async def test_a_digest_of_an_earlier_release_is_still_that_of_the_same_work(platform):
    first = await platform.submit(keyed())

    kept = await platform.ledger.pool.fetchval("select digest from carillon.causes where id = $1", first.id)

    # SHA-256 of "shop.add", a line feed and {"a": 1}.
    assert kept.hex() == "ae4d5c80458bbb06818e853cbcddf367c5b7c1ae53737c7c4048c6a4b5bf57ac"


def test_what_is_covered_has_one_spelling_in_every_release():
    after = After(runs=[RUN], when="ended", otherwise="run", delay=HOUR)
    whole = keyed(callback_url=URL, unique=Unique(key="u", window=HOUR), after=after)

    assert keyed(unique=Unique(), run_at=None, labels={"a": "b"}).covered is None
    assert whole.covered == "d409960fbee7b4538b8036f7acb2b35e148a97d7fb110f850f1ee96cc6f3d8a0"
