"""What the benchmark takes from the peers' own tables and results, and how many steps it gives them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from bench.celery_peer import RedisResults
from bench.dbos_peer import UNENDED, done
from bench.errors import BenchError
from bench.rounds import compare
from bench.system import FAN_OUT, Measured

#: Of what DBOS makes, the columns that are read.
TABLES = """
create schema dbos;
create table dbos.workflow_status (workflow_uuid text, status text, completed_at bigint);
create table dbos.operation_outputs (workflow_uuid text, function_id int, error text, started_at_epoch_ms bigint);
insert into dbos.workflow_status values ('a', 'SUCCESS', 5200), ('b', 'SUCCESS', 6500);
insert into dbos.operation_outputs values ('a', 1, null, 4500), ('a', 2, null, 4600), ('b', 1, null, 5100);
"""


class Steps:
    """A system that does a hundred steps a second."""

    name = "steps"

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.counts: list[int] = []

    async def measure(self, count: int) -> Measured:
        self.counts.append(count)
        return Measured(count=count, seconds=(count - 1) / 100)


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(TABLES)
    yield connection
    await connection.execute("drop schema dbos cascade")
    await connection.close()


async def test_dbos_is_measured_from_its_first_step_to_the_end_of_its_last_workflow(tables):
    measured = await done(tables, 3)

    assert measured == Measured(count=3, seconds=2.0)
    assert not await tables.fetchval(UNENDED)


@pytest.mark.parametrize(
    "fault",
    [
        "delete from dbos.operation_outputs where function_id = 2",
        "update dbos.operation_outputs set error = 'it broke' where function_id = 2",
        "update dbos.workflow_status set status = 'ERROR' where workflow_uuid = 'b'",
    ],
)
async def test_a_step_of_dbos_that_is_missing_or_failed_stops_the_measurement(tables, fault):
    await tables.execute(fault)

    with pytest.raises(BenchError, match="3 steps were to be done, but the tables of DBOS say"):
        await done(tables, 3)


async def test_what_failed_in_celery_is_not_counted_as_done(redis_url):
    results = RedisResults(redis_url, "prefix:")
    async with Redis.from_url(redis_url) as redis:
        for name, status in (("a", "SUCCESS"), ("b", "FAILURE"), ("c", "SUCCESS")):
            ended = {"status": status, "date_done": f"2026-11-29T12:00:0{'abc'.index(name)}+00:00"}
            await redis.set(f"prefix:celery-task-meta-{name}", orjson.dumps(ended))

    span = await results.take(["a", "b", "c"])

    assert (span.count, span.last - span.first) == (2, 2.0)
    assert await results.count(["a", "b", "c"]) == 0


async def test_a_slow_system_is_given_the_least_number_of_steps_and_a_fan_out_always_has_all_of_its_own():
    chains, fan_out = Steps(largest=60_000), Steps(largest=FAN_OUT)

    await compare([chains, fan_out], 2, 10.0, lambda _: None, smallest=FAN_OUT)
    await compare([chains], 1, 10.0, lambda _: None)

    assert fan_out.counts == [FAN_OUT] * 3
    assert chains.counts == [FAN_OUT] * 3 + [1_000, 500]
