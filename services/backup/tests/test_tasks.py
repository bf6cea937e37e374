"""What backup does and hears, as the platform sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from backup.app import service
from backup.events import back_up_requested_source
from backup.tasks import back_up_database, list_backups
from backup.telling import failed
from carillon import Run
from carillon.contracts import BackupCompleted, BackupFailed, BackupRequested
from carillon.errors import InvalidArgumentsError

if TYPE_CHECKING:
    from backup.dumps import Dumps


def a_run(task: str) -> Run:
    return Run(id=uuid4(), task=task, domain="backup")


async def test_a_requested_backup_says_what_was_proven(dumps: Dumps) -> None:
    run = a_run("backup.back_up_requested_source")

    said = await back_up_requested_source.original_func(BackupRequested(), run=run, dumps=dumps)

    assert isinstance(said, BackupCompleted)
    assert (said.source, said.backup_id) == ("platform", run.id)
    assert said.key == f"backup/platform/{run.id}.dump.zst"
    assert min(said.stored_bytes, said.plain_bytes, said.rows, said.tables) > 0


async def test_running_the_task_twice_says_the_same_twice(dumps: Dumps) -> None:
    run = a_run("backup.back_up_database")

    first = await back_up_database.original_func("platform", run=run, dumps=dumps)
    second = await back_up_database.original_func("platform", run=run, dumps=dumps)

    assert first == second
    assert [each["id"] for each in await list_backups.original_func(5, dumps=dumps)] == [str(run.id)]


@pytest.mark.parametrize("task", [back_up_database, back_up_requested_source])
def test_a_backup_says_that_it_was_proven_or_that_it_failed(task) -> None:
    assert task.says == (BackupCompleted, BackupFailed)
    assert task.on_failure is failed


@pytest.mark.parametrize("arguments", [{"source": "orders"}, {"event": {"source": "orders"}}])
def test_a_failure_that_has_no_stage_of_its_own_is_told_with_source_and_reason(arguments) -> None:
    told = failed(arguments, TimeoutError())

    assert (told.source, told.stage, told.reason) == ("orders", "dump", "TimeoutError")


@pytest.mark.parametrize(
    "source", ["", "Platform", "-f/tmp/x", "--file=x", "main;id", "$(id)", "host=evil user=x", "a\nb"]
)
def test_only_an_id_can_name_a_source(source: str) -> None:
    with pytest.raises(InvalidArgumentsError):
        back_up_database.validated({"source": source})


def test_the_platform_is_backed_up_every_night() -> None:
    nightly = {schedule.name: schedule for schedule in service().schedules}["nightly-backup"]

    assert nightly.event == BackupRequested(source="platform")
    assert (nightly.cron, nightly.timezone) == ("0 2 * * *", "UTC")
