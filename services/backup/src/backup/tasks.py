"""What backup does. Each task: call the domain, then say what happened."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from backup.dumps import Dumps
from backup.sources import SOURCE_ID
from backup.telling import completed, failed
from carillon import Retry, Run, Tasks
from carillon.contracts import BackupCompleted

tasks = Tasks("backup")

#: A source is named by its id alone; nothing else fits the schema.
SourceId = Annotated[str, Field(pattern=SOURCE_ID.pattern)]

#: A dump and its drill; what takes longer is too big for a logical backup of this kind.
LONGEST = timedelta(hours=1)
#: Servers restart in minutes, so five attempts reach from seconds to some minutes.
AGAIN = Retry(attempts=5, base=timedelta(seconds=2), cap=timedelta(minutes=5))


@tasks.task(timeout=LONGEST, retry=AGAIN, on_failure=failed, default=True)
async def back_up_database(source: SourceId = "platform", *, run: Run, dumps: Dumps) -> BackupCompleted:
    """Dump one configured source, keep the dump, and prove by a restore that it comes back.

    Safe to run twice: a dump is kept under its source and run id, so the second attempt replaces the first, and a
    backup that is already proven is not taken again.
    """
    return completed(await dumps.back_up(source, run.id))


@tasks.task(timeout=timedelta(seconds=30), retry=Retry(attempts=3))
async def list_backups(limit: Annotated[int, Field(ge=1, le=200)] = 20, *, dumps: Dumps) -> list[dict[str, Any]]:
    """List the latest backups, newest first, with their sizes, hashes, times and whether they are proven.

    Safe to run twice: it only reads.
    """
    return [backup.model_dump(mode="json", exclude={"manifest"}) for backup in await dumps.recent(limit)]
