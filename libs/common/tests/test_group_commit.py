"""Group commit: batches under load, a bad item that fails alone, bounded room, and callers that give up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from carillon.ledger.group_commit import GroupCommit


class Table:
    """What a server would do: it keeps batches, refuses bad items, and can be away or slow."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.entered = asyncio.Event()
        self.bad: set[int] = set()
        self.away = False

    async def write(self, batch: Sequence[int]) -> list[int | Exception]:
        self.entered.set()
        await self.open.wait()
        if self.away:
            raise ConnectionResetError("the server closed the connection")
        if self.bad.intersection(batch):
            raise ValueError(f"bad: {sorted(self.bad.intersection(batch))}")
        self.batches.append(list(batch))
        return [LookupError(f"{item} is odd") if item < 0 else item * 10 for item in batch]

    @property
    def kept(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def table() -> Table:
    return Table()


async def test_everyone_gets_the_outcome_of_their_own_item(table):
    commit = GroupCommit(table.write, most=7)

    outcomes = await asyncio.gather(*map(commit, range(100)))

    assert outcomes == [item * 10 for item in range(100)]
    assert table.kept == list(range(100))


async def test_what_arrives_while_a_batch_is_written_goes_together_into_the_next(table):
    commit = GroupCommit(table.write, most=500)
    table.open.clear()
    first = asyncio.create_task(commit(0))
    await table.entered.wait()

    later = [asyncio.create_task(commit(item)) for item in range(1, 301)]
    await asyncio.sleep(0)
    table.open.set()
    await asyncio.gather(first, *later)

    assert table.batches == [[0], list(range(1, 301))]


async def test_no_batch_is_larger_than_was_asked_for(table):
    commit = GroupCommit(table.write, most=64)

    await asyncio.gather(*map(commit, range(1000)))

    assert max(map(len, table.batches)) == 64
    assert len(table.batches) == 16


async def test_one_bad_item_fails_alone(table):
    commit = GroupCommit(table.write)
    table.bad = {7}

    outcomes = await asyncio.gather(*map(commit, range(20)), return_exceptions=True)

    assert isinstance(outcomes[7], ValueError)
    assert [outcomes[item] for item in range(20) if item != 7] == [item * 10 for item in range(20) if item != 7]
    assert sorted(table.kept) == [item for item in range(20) if item != 7]


async def test_an_outcome_that_is_an_error_is_raised_to_its_caller_only(table):
    commit = GroupCommit(table.write)

    one, other = await asyncio.gather(commit(-1), commit(2), return_exceptions=True)

    assert isinstance(one, LookupError)
    assert other == 20


async def test_while_the_server_is_away_everyone_is_refused_at_once_and_nothing_is_tried_one_by_one(table):
    commit = GroupCommit(table.write)
    table.away = True

    outcomes = await asyncio.gather(*map(commit, range(50)), return_exceptions=True)
    table.away = False

    assert {type(outcome) for outcome in outcomes} == {ConnectionResetError}
    assert await commit(1) == 10
    assert table.batches == [[1]]


async def test_whoever_finds_no_room_waits_for_it(table):
    commit = GroupCommit(table.write, most=10, room=10)
    table.open.clear()

    calls = [asyncio.create_task(commit(item)) for item in range(25)]
    await table.entered.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    waiting = len(commit._waiting)
    table.open.set()

    assert waiting == 0
    assert await asyncio.gather(*calls) == [item * 10 for item in range(25)]
    assert max(map(len, table.batches)) == 10


@pytest.mark.parametrize("when", ["waiting", "being written"])
async def test_a_caller_who_gives_up_harms_nobody_else(table, when):
    commit = GroupCommit(table.write, most=3, room=6)
    table.open.clear()
    calls = [asyncio.create_task(commit(item)) for item in range(6)]
    await table.entered.wait()
    gone = calls[1] if when == "being written" else calls[4]

    gone.cancel()
    await asyncio.wait({gone})
    table.open.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert [outcomes[item] for item in range(6) if calls[item] is not gone] == [
        item * 10 for item in range(6) if calls[item] is not gone
    ]
    assert await asyncio.gather(*map(commit, range(6, 18))) == [item * 10 for item in range(6, 18)]


async def test_a_writer_that_is_interrupted_leaves_no_caller_waiting(table):
    commit = GroupCommit(table.write)
    table.open.clear()
    call = asyncio.create_task(commit(1))
    await table.entered.wait()

    commit._writer.cancel()
    with pytest.raises(ConnectionError, match="the write was interrupted"):
        await asyncio.wait_for(call, 5)
    table.open.set()

    assert await commit(2) == 20


async def test_whoever_waits_behind_an_interrupted_write_is_refused_and_not_forgotten(table):
    commit = GroupCommit(table.write, most=1)
    table.open.clear()
    calls = [asyncio.create_task(commit(item)) for item in range(3)]
    await table.entered.wait()

    commit._writer.cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)

    assert {type(outcome) for outcome in outcomes} == {ConnectionError}


async def test_items_written_together_have_their_outcomes_and_their_errors_in_order(table):
    commit = GroupCommit(table.write, most=4)
    table.bad = {3}

    outcomes = await commit.together([1, -2, 3, 4, 5])

    assert (outcomes[0], outcomes[3:]) == (10, [40, 50])
    assert [type(outcome) for outcome in outcomes[1:3]] == [LookupError, ValueError]


async def test_items_written_together_wait_for_room(table):
    commit = GroupCommit(table.write, most=2, room=4)
    table.open.clear()
    before = [asyncio.create_task(commit(item)) for item in range(4)]
    await table.entered.wait()

    together = asyncio.create_task(commit.together([10, 11, 12]))
    await asyncio.sleep(0)
    waiting = len(commit._waiting)
    table.open.set()

    assert waiting == 2
    assert await together == [100, 110, 120]
    assert await asyncio.gather(*before) == [0, 10, 20, 30]


async def test_a_batch_that_ends_in_a_deadlock_is_written_again_whole(table):
    broken = 2

    async def write(batch: Sequence[int]) -> list[int | Exception]:
        nonlocal broken
        if broken:
            broken -= 1
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return await table.write(batch)

    commit = GroupCommit(write)

    assert await asyncio.gather(*(commit(n) for n in range(3))) == [0, 10, 20]
    assert table.batches == [[0, 1, 2]]
