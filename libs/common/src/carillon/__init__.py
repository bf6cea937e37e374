"""Carillon: work that runs on time, scales by domain, survives anything, and leaves proof.

```python
from carillon import Retry, Run, Tasks

tasks = Tasks("billing")

@tasks.task(retry=Retry(attempts=3))
async def send_invoice(order: str, *, run: Run) -> dict[str, str]:
    \"\"\"Send one invoice. Safe to run twice: ...\"\"\"
```
"""

from carillon.connection import connect
from carillon.ledger.schedules import Schedule
from carillon.retry import Retry
from carillon.run import Cause, Run
from carillon.service import Service
from carillon.tasks import Task, Tasks

__all__ = ["Cause", "Retry", "Run", "Schedule", "Service", "Task", "Tasks", "connect"]
