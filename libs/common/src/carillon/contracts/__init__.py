"""What services say to each other: the only place where two of them meet."""

from carillon.contracts.analytics import RollupRequested, RollupRow, RollupsComputed
from carillon.contracts.backup import BackupCompleted, BackupFailed, BackupRequested
from carillon.contracts.event import Event
from carillon.contracts.notifications import NotificationDelivered
from carillon.contracts.policies import BreakerChanged
from carillon.contracts.reports import Artefact, ReportRendered
from carillon.contracts.runs import RunEnded

__all__ = [
    "Artefact",
    "BackupCompleted",
    "BackupFailed",
    "BackupRequested",
    "BreakerChanged",
    "Event",
    "NotificationDelivered",
    "ReportRendered",
    "RollupRequested",
    "RollupRow",
    "RollupsComputed",
    "RunEnded",
]
