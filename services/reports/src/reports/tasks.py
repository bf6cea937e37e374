"""What reports does. Each task: call the domain, then say what happened."""

from datetime import timedelta

from carillon import Retry, Run, Tasks
from carillon.contracts import ReportRendered, RollupsComputed
from reports.operations import OperationsReports

tasks = Tasks("reports")

#: Longer than the longest rendering that the settings allow, with time to keep the files.
TIMEOUT = timedelta(minutes=15)
RETRY = Retry(attempts=4, base=timedelta(seconds=2))


@tasks.task(timeout=TIMEOUT, retry=RETRY, default=True)
async def render_operations_report(
    rollups: RollupsComputed | None = None, *, run: Run, reports: OperationsReports
) -> ReportRendered:
    """Render the operations report from these rollups, or from the last ones heard, and keep every format of it.

    Safe to run twice: a report has the id of its run, and one that exists is returned as it is; files that a run left
    behind before it broke lie under that id too, and are replaced.
    """
    return await reports.render(run.id, rollups)
