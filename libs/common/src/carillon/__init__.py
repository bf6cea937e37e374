"""Carillon: work that runs on time, scales by domain, survives anything, and leaves proof.

```python
from carillon import Retry, Run, Tasks

tasks = Tasks("billing")

@tasks.task(retry=Retry(attempts=3))
async def send_invoice(order: str, *, run: Run) -> dict[str, str]:
    \"\"\"Send one invoice. Safe to run twice: ...\"\"\"
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carillon.connection import connect
    from carillon.jobs import get_job_status, pause_job, resume_job
    from carillon.ledger.records import After, Priority, Unique
    from carillon.ledger.schedules import Schedule
    from carillon.limits import Limits, Rate
    from carillon.operator import get_operator
    from carillon.partial import Partial
    from carillon.retry import NEVER, Retry
    from carillon.run import Cause, Run
    from carillon.service import Service
    from carillon.task import Task
    from carillon.tasks import Tasks
    from carillon.tracker import get_tracker
    from carillon.workflows.flow import Workflow
    from carillon.workflows.remote import RemoteTask

__all__ = [
    "NEVER", "After", "Cause", "Limits", "Partial", "Priority", "Rate", "RemoteTask", "Retry", "Run", "Schedule",
    "Service", "Task", "Tasks", "Unique", "Workflow", "connect", "get_job_status", "get_operator", "get_tracker",
    "pause_job", "resume_job",
]  # fmt: skip

_HOMES = {
    "NEVER": "carillon.retry",
    "After": "carillon.ledger.records",
    "Cause": "carillon.run",
    "Limits": "carillon.limits",
    "Partial": "carillon.partial",
    "Priority": "carillon.ledger.records",
    "Rate": "carillon.limits",
    "RemoteTask": "carillon.workflows.remote",
    "Retry": "carillon.retry",
    "Run": "carillon.run",
    "Schedule": "carillon.ledger.schedules",
    "Service": "carillon.service",
    "Task": "carillon.task",
    "Tasks": "carillon.tasks",
    "Unique": "carillon.ledger.records",
    "Workflow": "carillon.workflows.flow",
    "connect": "carillon.connection",
    "get_job_status": "carillon.jobs",
    "get_operator": "carillon.operator",
    "get_tracker": "carillon.tracker",
    "pause_job": "carillon.jobs",
    "resume_job": "carillon.jobs",
}


def __getattr__(name: str) -> object:
    """Import a name when it is asked for: a process that needs one piece does not pay 100 MB for all of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'carillon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
