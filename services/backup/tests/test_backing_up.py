"""A backup counts only when it came back equal, and leaves nothing behind whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore
import psutil
import pytest

from backup.drill import scratch_name, sole_worker
from backup.dumps import Dumps
from backup.errors import (
    AlreadyAtItError,
    DamagedBackupError,
    SourceRefusedError,
    ToolFailedError,
    UnequalRestoreError,
    UnknownSourceError,
)
from backup.sources import parse_source
from backup.store import BackupStore
from backup.telling import failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncpg import Connection, Record
    from conftest import Gate
    from obstore.store import LocalStore

    from backup.record import Backup
    from backup.sources import Source

HALF_A_DUMP = '"$REAL" "$@" | /usr/bin/head -c 300000'


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def file_modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths if path.exists()]


async def test_backing_up_twice_leaves_one_dump(dumps: Dumps, folder: Path) -> None:
    run_id = uuid4()

    first = await dumps.back_up("platform", run_id)
    second = await dumps.back_up("platform", run_id)

    assert first.state == "proven"
    assert first.rows >= 20_000
    assert second == first
    assert files_in(folder) == [f"{run_id}.dump.zst"]


async def test_two_backups_are_listed_newest_first(dumps: Dumps) -> None:
    older, newer = uuid4(), uuid4()

    await dumps.back_up("platform", older)
    await dumps.back_up("platform", newer)

    assert [backup.id for backup in await dumps.recent(5)] == [newer, older]
    assert [backup.id for backup in await dumps.recent(1)] == [newer]


async def test_rows_written_during_the_dump_do_not_disturb_the_proof(
    source: Source, storage: LocalStore, records: BackupStore, gate: Gate, connection: Connection[Record]
) -> None:
    gate.script("pg_dump", 'wait_at_gate; exec "$REAL" "$@"')
    dumps = Dumps({"platform": source}, storage, records, tools_folder=gate.folder)

    backing_up = asyncio.ensure_future(dumps.back_up("platform", uuid4()))
    await gate.until_reached()
    changed = await connection.execute("update orders set cents = cents + 1")
    await connection.execute("insert into orders (item, cents) values ('late', 1)")
    await connection.execute("select nextval('tickets') from generate_series(1, 5)")
    gate.open()
    backup = await backing_up

    assert changed == "UPDATE 20000"
    assert backup.state == "proven"
    assert backup.manifest is not None
    assert backup.manifest.tables["public.orders"].rows == 20_000


async def test_a_dump_of_another_moment_is_found_out(
    source: Source, storage: LocalStore, records: BackupStore, gate: Gate, connection: Connection[Record]
) -> None:
    gate.script("pg_dump", 'wait_at_gate; exec "$REAL" "${@/--snapshot=*/--no-sync}"')
    dumps = Dumps({"platform": source}, storage, records, tools_folder=gate.folder)
    run_id = uuid4()

    backing_up = asyncio.ensure_future(dumps.back_up("platform", run_id))
    await gate.until_reached()
    changed = await connection.execute("update orders set cents = cents + 1 where id = 7")
    gate.open()

    with pytest.raises(UnequalRestoreError, match=r"public\.orders") as refused:
        await backing_up
    assert failed({"source": "platform"}, refused.value).stage == "compare"
    assert changed == "UPDATE 1"
    kept = await records.find(run_id)
    assert kept is not None
    assert (kept.state, kept.stage) == ("failed", "compare")


class Tamperer(BackupStore):
    """Changes one byte of every dump as soon as it is stored."""

    async def keep(self, backup: Backup) -> None:
        if backup.state == "dumped":
            self.tamper(backup.key or "")
        await super().keep(backup)

    def tamper(self, key: str) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("place", [0, 5, 0.5, -1])
async def test_one_changed_byte_in_the_storage_fails_the_proof(
    source: Source,
    storage: LocalStore,
    records: BackupStore,
    place: float,
    scratches: Callable[[], Awaitable[set[str]]],
) -> None:
    tampered: list[bool] = []

    class OneByte(Tamperer):
        def tamper(self, key: str) -> None:
            sound = bytes(obstore.get(storage, key).bytes())
            at = int(len(sound) * place) if isinstance(place, float) else place % len(sound)
            broken = sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :]
            obstore.put(storage, key, broken)
            tampered.append(bytes(obstore.get(storage, key).bytes()) != sound)

    dumps = Dumps({"platform": source}, storage, OneByte(records.engine))
    run_id = uuid4()

    with pytest.raises(DamagedBackupError, match="is damaged"):
        await dumps.back_up("platform", run_id)

    assert tampered == [True]
    kept = await records.find(run_id)
    assert kept is not None
    assert (kept.state, kept.stage) == ("failed", "restore")
    assert scratch_name(run_id) not in await scratches()


async def test_a_dump_cut_short_in_the_storage_fails_the_proof(
    source: Source, storage: LocalStore, records: BackupStore
) -> None:
    tampered: list[int] = []

    class Cut(Tamperer):
        def tamper(self, key: str) -> None:
            sound = bytes(obstore.get(storage, key).bytes())
            obstore.put(storage, key, sound[:-5000])
            tampered.append(len(sound))

    dumps = Dumps({"platform": source}, storage, Cut(records.engine))

    with pytest.raises(DamagedBackupError):
        await dumps.back_up("platform", uuid4())

    assert tampered[0] > 5000


async def test_a_killed_pg_dump_leaves_nothing_in_the_storage(
    source: Source, storage: LocalStore, records: BackupStore, folder: Path, gate: Gate
) -> None:
    gate.script("pg_dump", f"{HALF_A_DUMP}; kill -9 $$")
    dumps = Dumps({"platform": source}, storage, records, tools_folder=gate.folder)
    run_id = uuid4()

    with pytest.raises(ToolFailedError, match="killed by signal 9"):
        await dumps.back_up("platform", run_id)

    assert files_in(folder) == []
    kept = await records.find(run_id)
    assert kept is not None
    assert (kept.state, kept.stage, kept.key) == ("failed", "dump", None)


async def test_a_failed_backup_is_taken_again_under_the_same_id(
    source: Source, storage: LocalStore, records: BackupStore, folder: Path, gate: Gate
) -> None:
    gate.script("pg_dump", f"{HALF_A_DUMP}; kill -9 $$")
    run_id = uuid4()

    with pytest.raises(ToolFailedError):
        await Dumps({"platform": source}, storage, records, tools_folder=gate.folder).back_up("platform", run_id)
    again = await Dumps({"platform": source}, storage, records).back_up("platform", run_id)

    assert again == await records.find(run_id)
    assert (again.state, again.reason) == ("proven", None)
    assert files_in(folder) == [f"{run_id}.dump.zst"]


async def test_cancelling_a_dump_ends_its_processes_and_leaves_nothing(
    source: Source, storage: LocalStore, records: BackupStore, folder: Path, gate: Gate
) -> None:
    gate.script("pg_dump", f"{HALF_A_DUMP}; wait_at_gate")
    dumps = Dumps({"platform": source}, storage, records, tools_folder=gate.folder)
    # The session may have servers of its own.
    before = set(psutil.Process().children(recursive=True))

    backing_up = asyncio.ensure_future(dumps.back_up("platform", uuid4()))
    await gate.until_reached()
    # A child of such a server is one of its sessions, which is the server's to end.
    children = {
        child
        for child in set(psutil.Process().children(recursive=True)) - before
        if child.is_running() and child.parent() not in before
    }
    backing_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await backing_up

    assert children
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert files_in(folder) == []


async def test_the_scratch_database_is_gone_after_a_success_a_failure_and_a_cancel(
    source: Source,
    storage: LocalStore,
    records: BackupStore,
    gate: Gate,
    scratches: Callable[[], Awaitable[set[str]]],
) -> None:
    well, badly, cancelled = uuid4(), uuid4(), uuid4()
    dumps = Dumps({"platform": source}, storage, records, tools_folder=gate.folder)

    await dumps.back_up("platform", well)
    gate.script("pg_restore", '/usr/bin/head -c 100000 | "$REAL" "$@"; exit 3')
    with pytest.raises(ToolFailedError, match="status 3"):
        await dumps.back_up("platform", badly)
    gate.script("pg_restore", 'wait_at_gate; exec "$REAL" "$@"')
    backing_up = asyncio.ensure_future(dumps.back_up("platform", cancelled))
    await gate.until_reached()
    during = await scratches()
    backing_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await backing_up

    assert scratch_name(cancelled) in during
    assert not {scratch_name(each) for each in (well, badly, cancelled)} & await scratches()


async def test_leftovers_of_dead_runs_are_dropped_and_those_of_living_ones_kept(
    dumps: Dumps, source: Source, connection: Connection[Record], scratches: Callable[[], Awaitable[set[str]]]
) -> None:
    dead, alive = uuid4(), uuid4()
    await connection.execute(f'create database "{scratch_name(dead)}"')
    await connection.execute(f'create database "{scratch_name(alive)}"')

    async with sole_worker(source, alive):
        await dumps.back_up("platform", uuid4())
        after = await scratches()
    await connection.execute(f'drop database "{scratch_name(alive)}"')

    assert scratch_name(dead) not in after
    assert scratch_name(alive) in after


async def test_one_backup_is_worked_by_one_worker_at_a_time(dumps: Dumps, source: Source) -> None:
    run_id = uuid4()

    async with sole_worker(source, run_id):
        with pytest.raises(AlreadyAtItError):
            await dumps.back_up("platform", run_id)
    backup = await dumps.back_up("platform", run_id)

    assert backup.state == "proven"


async def test_an_unknown_source_is_refused_with_the_known_ones(dumps: Dumps) -> None:
    with pytest.raises(UnknownSourceError, match="configured are platform"):
        await dumps.back_up("postgresql://evil/", uuid4())


async def test_a_wrong_password_is_said_plainly_and_leaves_no_file(
    locked_url: str, storage: LocalStore, records: BackupStore, folder: Path
) -> None:
    user, _, place = locked_url.partition("@")
    wrong = f"{user.rpartition(':')[0]}:not-the-canary@{place}"
    dumps = Dumps({"locked": parse_source("locked", wrong)}, storage, records)
    run_id = uuid4()

    with pytest.raises(SourceRefusedError, match="password authentication failed") as refusal:
        await dumps.back_up("locked", run_id)

    assert "not-the-canary" not in str(refusal.value)
    assert files_in(folder) == []
    kept = await records.find(run_id)
    assert kept is not None
    assert (kept.state, kept.stage) == ("failed", "dump")


async def test_a_password_travels_by_file_only_and_the_file_does_not_stay(
    locked_url: str, storage: LocalStore, records: BackupStore, gate: Gate, tmp_path: Path
) -> None:
    locked = parse_source("locked", locked_url)
    gate.version = "18.0"
    gate.script("pg_dump", f'echo "$0 $@" > {tmp_path}/told; export -p >> {tmp_path}/told; wait_at_gate; exit 9')
    dumps = Dumps({"locked": locked}, storage, records, tools_folder=gate.folder)

    backing_up = asyncio.ensure_future(dumps.back_up("locked", uuid4()))
    await gate.until_reached()
    told = (tmp_path / "told").read_text()
    passfile = Path(told.partition('PGPASSFILE="')[2].partition('"')[0])
    modes = file_modes(passfile)
    gate.open()
    with pytest.raises(ToolFailedError):
        await backing_up

    assert locked.password
    assert locked.password not in told
    assert modes == [0o600]
    assert file_modes(passfile) == []
