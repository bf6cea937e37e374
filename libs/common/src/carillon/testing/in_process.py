"""Running single attempts of a domain's tasks in the test's own process, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from carillon.contracts import Event
from carillon.ids import new_id
from carillon.partial import Partial
from carillon.policies import Policies
from carillon.run import Cause, Progress, Run, current_run
from carillon.settings import PlatformSettings
from carillon.task import Task
from carillon.tasks import Tasks
from carillon.telemetry.excerpt import kept_lines
from carillon.telemetry.metrics import Metrics
from carillon.testing.memory import MemoryPlatform
from carillon.worker.execution import result_json


class InProcess:
    """Executes attempts as a worker would: arguments validated, resources injected, events said only on success.

    For tests that want what one attempt raises, or the same run twice; `Rehearsal` runs a domain whole.
    """

    def __init__(self, tasks: Tasks, resources: Mapping[type, object]) -> None:
        tasks.check(resources)
        twin = MemoryPlatform(PlatformSettings.model_construct(storage_url="memory:///"), name="in process")
        self._resources: Mapping[type, object] = {Policies: Policies(twin, Metrics()), **resources}
        #: What successful runs said, in order.
        self.said: list[Event] = []
        #: What runs reported with `run.progress`, in order, and what the last of them kept with `run.keep`.
        self.progress: list[Progress] = []
        self.kept: Any = None
        #: What the code of the last run logged, as the ledger would keep it: the last lines, without secrets.
        self.log: str = ""

    async def run(
        self,
        task: Task[..., Any],
        *,
        run_id: UUID | None = None,
        attempt: int = 1,
        **arguments: Any,
    ) -> Any:
        """One attempt; raises what the task raises."""
        given = {name: _jsonable(value) for name, value in arguments.items()}
        cause = None
        if task.hears is not None:
            cause = Cause(str(run_id or new_id()), task.hears.type, "/test", datetime.now(UTC))
        run = Run(id=run_id or new_id(), task=task.task_name, domain=task.domain, attempt=attempt, cause=cause)
        run.listen = partial(self._listen, run)
        bound = task.validated(given)
        for name, kind in task.needs.items():
            bound[name] = run if kind is Run else self._resources[kind]
        token = current_run.set(run)
        try:
            with kept_lines():
                call = task.original_func
                returned = await call(**bound) if task.is_async else await asyncio.to_thread(call, **bound)
        finally:
            current_run.reset(token)
            self.log = str(run.excerpt or "")
        value = returned.value if isinstance(returned, Partial) else returned
        result_json(value)
        if isinstance(value, Event):
            run.say(value)
        self.said.extend(run.said)
        return returned

    def _listen(self, run: Run) -> None:
        if run.reported is not None and (not self.progress or self.progress[-1] is not run.reported):
            self.progress.append(run.reported)
        if run.kept is not None:
            self.kept = orjson.loads(run.kept)


def _jsonable(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, Event) else value
