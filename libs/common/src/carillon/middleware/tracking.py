"""Tracking: puts how an attempt ended into the words that the ledger keeps."""

from __future__ import annotations

from typing import Any

from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from carillon.worker.execution import Execution, error_json


class TrackingMiddleware(TaskiqMiddleware):
    """Innermost: it sees the plain error. The worker writes what it prepared, in one statement with the events."""

    def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:  # noqa: ARG002
        """Keep type, message, traceback and fingerprint."""
        execution: Execution = message.execution  # type: ignore[attr-defined]
        execution.error = error_json(exception)
