"""What reports hears."""

from carillon import Run
from carillon.contracts import ReportRendered, RollupsComputed
from reports.operations import OperationsReports
from reports.tasks import RETRY, TIMEOUT, tasks

#: `app.py` takes the tasks from here, so that what is heard is declared by then.
__all__ = ["report_operations", "tasks"]


@tasks.hears(RollupsComputed, timeout=TIMEOUT, retry=RETRY)
async def report_operations(event: RollupsComputed, *, run: Run, reports: OperationsReports) -> ReportRendered:
    """Remember the rollups that analytics computed, and render the operations report from them.

    Safe to run twice: rollups replace older ones only, and a report has the id of its run; one that exists is
    returned as it is.
    """
    await reports.hear(event)
    return await reports.render(run.id, event)
