"""The manifest notices every change of contents, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from backup.manifest import Manifest, SequenceRange, differences, fix_settings, take_manifest

if TYPE_CHECKING:
    from asyncpg import Connection, Record


async def manifest_of(connection: Connection[Record]) -> Manifest:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await fix_settings(connection)
        return await take_manifest(connection)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("update orders set cents = cents + 1 where id = 7", "UPDATE 1"),
        ("update orders set item = item || ' ' where id = 7", "UPDATE 1"),
        ("update orders set placed = placed + interval '1 microsecond' where id = 7", "UPDATE 1"),
        ("delete from orders where id = 20000", "DELETE 1"),
        ("insert into orders (item, cents) select item, cents from orders where id = 1", "INSERT 0 1"),
        ("update orders as o set item = p.item from orders as p where (o.id, p.id) in ((1, 2), (2, 1))", "UPDATE 2"),
    ],
)
async def test_a_change_of_one_row_is_noticed(connection: Connection[Record], change: str, status: str) -> None:
    before = await manifest_of(connection)

    changed = await connection.execute(change)
    after = await manifest_of(connection)

    assert changed == status
    assert any(told.startswith("public.orders:") for told in differences(before, after))
    assert before.sha256 != after.sha256


async def test_the_order_of_rows_and_the_settings_of_a_session_do_not_matter(connection: Connection[Record]) -> None:
    before = await manifest_of(connection)

    moved = await connection.execute("update orders set cents = cents")
    await connection.execute("set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set extra_float_digits = -5")
    after = await manifest_of(connection)

    assert moved == "UPDATE 20000"
    assert differences(before, after) == []
    assert before.sha256 == after.sha256


async def test_a_moved_sequence_is_noticed(connection: Connection[Record]) -> None:
    before = await manifest_of(connection)

    await connection.fetchval("select nextval('tickets')")
    after = await manifest_of(connection)

    assert differences(before, after) == ["sequence public.tickets stands elsewhere, or only on one side"]


async def test_a_sequence_that_moved_during_the_dump_may_stand_anywhere_between(connection: Connection[Record]) -> None:
    before = await manifest_of(connection)
    at = before.sequences["public.tickets"].low

    spanning = before.spanning(before.sequences | {"public.tickets": SequenceRange(low=at + 6, high=at + 6)})
    moved = before.sequences | {"public.tickets": SequenceRange(low=at + 4, high=at + 4)}
    between = before.model_copy(update={"sequences": moved})

    assert differences(spanning, between) == []
    assert differences(before, between) != []


async def test_a_lost_table_and_a_strange_one_are_named(connection: Connection[Record]) -> None:
    before = await manifest_of(connection)

    await connection.execute("alter table orders rename to purchases")
    after = await manifest_of(connection)

    tables = [told.split(":")[0] for told in differences(before, after) if not told.startswith("sequence")]
    assert tables == ["public.orders", "public.purchases"]


async def test_rows_hidden_by_row_security_are_an_error_and_not_an_omission(
    connection: Connection[Record], platform_url: str
) -> None:
    role = f"carillon_reader_{connection.get_server_pid()}"
    await connection.execute(
        f"create role {role}; grant usage on schema public, backup to {role};"
        f"grant select on all tables in schema public, backup to {role};"
        f"grant select on all sequences in schema public to {role};"
        "alter table orders enable row level security"
    )
    reader = await asyncpg.connect(platform_url)
    try:
        await reader.execute(f"set role {role}")

        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await manifest_of(reader)
    finally:
        await reader.close()
        await connection.execute(f"drop owned by {role}; drop role {role}")
