"""Every kind of content comes back, from servers of several versions, with tools of their own or newer ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg

from backup.dumps import Dumps
from backup.sources import parse_source
from backup.tools import installed, wheel_folders

if TYPE_CHECKING:
    from obstore.store import LocalStore

    from backup.sources import Source
    from backup.store import BackupStore

PECULIAR = Path(__file__).with_name("peculiar.sql").read_text()


async def fill(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statements)
    await connection.close()


async def test_peculiar_contents_come_back(source: Source, platform_url: str, dumps: Dumps) -> None:
    await fill(platform_url, PECULIAR)

    backup = await dumps.back_up(source.id, uuid4())

    assert backup.state == "proven"
    assert backup.manifest is not None
    assert backup.manifest.tables["large objects"].rows == 1
    assert backup.manifest.tables["public.bare"].rows == 2
    assert set(backup.manifest.not_compared) == {"public.counted", "public.round"}


async def test_a_server_of_another_major_version_is_backed_up_with_its_own_tools(
    locked_url: str, storage: LocalStore, records: BackupStore
) -> None:
    await fill(locked_url, PECULIAR)
    dumps = Dumps({"locked": parse_source("locked", locked_url)}, storage, records)

    backup = await dumps.back_up("locked", uuid4())

    assert backup.state == "proven"
    assert backup.tools["server"].startswith("18.")
    assert backup.tools["pg_dump"].startswith("18.")


async def test_an_older_server_is_backed_up_with_newer_tools(
    source: Source, storage: LocalStore, records: BackupStore, platform_url: str
) -> None:
    await fill(platform_url, PECULIAR)
    newest = next(iter(installed(wheel_folders())))
    dumps = Dumps({"platform": source}, storage, records, tools_folder=newest.folder)

    backup = await dumps.back_up("platform", uuid4())

    assert backup.state == "proven"
    assert backup.tools["pg_dump"] == newest.version


async def test_nothing_is_read_from_object_names(platform_url: str, dumps: Dumps, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await fill(platform_url, f'create table "x\n\\! touch {trace}\n" (a int); create table "--file={trace}" (a int)')

    backup = await dumps.back_up("platform", uuid4())

    assert backup.state == "proven"
    assert not trace.exists()
