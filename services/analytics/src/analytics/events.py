"""What analytics hears."""

from analytics.aggregate import Aggregator, Recomputed
from analytics.tasks import TIMEOUT, tasks
from carillon.contracts import BackupCompleted, RollupRequested, RollupsComputed


@tasks.hears(BackupCompleted, timeout=TIMEOUT)
async def compute_rollups(event: BackupCompleted, *, aggregator: Aggregator) -> RollupsComputed:
    """Compute hours and days anew after a proven backup, and tell what the platform did lately.

    Safe to run twice: each bucket is replaced, and the event is said with the end of the run.
    """
    await aggregator.hours()
    await aggregator.days()
    return await aggregator.recent(event.type)


@tasks.hears(RollupRequested, timeout=TIMEOUT)
async def refresh_rollups(event: RollupRequested, *, aggregator: Aggregator) -> list[Recomputed]:
    """Compute hours and days anew without telling anybody: who hears of rollups mails reports of them.

    Safe to run twice: each bucket is replaced, never added to.
    """
    return [await aggregator.hours(event.since), await aggregator.days(event.since)]
