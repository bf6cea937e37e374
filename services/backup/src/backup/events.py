"""What backup hears. Hearing an event is a task like any other."""

from backup.dumps import Dumps
from backup.tasks import AGAIN, LONGEST, tasks
from backup.telling import completed, failed
from carillon import Run
from carillon.contracts import BackupCompleted, BackupRequested

__all__ = ["back_up_requested_source", "tasks"]


@tasks.hears(BackupRequested, timeout=LONGEST, retry=AGAIN, on_failure=failed)
async def back_up_requested_source(event: BackupRequested, *, run: Run, dumps: Dumps) -> BackupCompleted:
    """Back up the source that a schedule or a person asked for.

    Safe to hear twice: the same request is one run, and a run's dump is kept under its id, as in `back_up_database`.
    """
    return completed(await dumps.back_up(event.source, run.id))
