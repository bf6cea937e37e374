"""Results, read from the ledger."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from taskiq import TaskiqResult
from taskiq.abc.result_backend import AsyncResultBackend
from taskiq.exceptions import ResultGetError

from carillon.errors import CarillonError
from carillon.ledger.group_commit import SERVER_AWAY
from carillon.ledger.records import State
from carillon.platform import Platform
from carillon.worker.execution import Execution

log = structlog.get_logger(__name__)


class RunFailedError(CarillonError):
    """A run ended failed or cancelled; the message is the error that it ended with."""


class Results(AsyncResultBackend[Any]):
    """Reads results from the ledger, where finishing a run put them."""

    def __init__(self, platform: Platform) -> None:
        self._ledger = platform.ledger
        self._stored = platform.stored_results

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Nothing to do: the end of a run in the ledger has its result."""

    async def keep(self, task_id: str, result: TaskiqResult[Any], execution: Execution) -> None:
        """Nothing to keep elsewhere."""

    async def is_result_ready(self, task_id: str) -> bool:
        """Whether the run has ended; a ledger that does not answer is asked again by the next poll."""
        try:
            row = await self._ledger.outcome(UUID(task_id))
        except SERVER_AWAY as error:
            log.warning("result not read", error=repr(error))
            return False
        return row is not None and State(row["state"]).is_terminal

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:  # noqa: ARG002
        """The result of a run that has ended, out of the ledger or storage.

        Raises `ResultGetError` for a run that has not ended, or that nobody knows, and what `StoredResults.json` does.
        """
        row = await self._ledger.outcome(run := UUID(task_id))
        if row is None or not State(row["state"]).is_terminal:
            raise ResultGetError
        failed = row["state"] in {State.FAILED, State.CANCELLED}
        error = row["error"] or {}
        described = f"{error.get('type', row['state'])}: {error.get('message', 'no reason was recorded')}"
        return TaskiqResult(
            is_err=failed,
            return_value=await self._stored.value(run, row["result"]),
            execution_time=row["seconds"] or 0.0,
            labels=row["labels"],
            error=RunFailedError(described) if failed else None,
        )


def results_of(platform: Platform) -> Results:
    """The backend that `TASK_RESULT_BACKEND` names."""
    if platform.settings.task_result_backend == "postgres":
        return Results(platform)
    from carillon.worker.redis_results import RedisResults  # noqa: PLC0415 - 8 MB that PostgreSQL users spare

    return RedisResults(platform)
