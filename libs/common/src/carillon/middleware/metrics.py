"""Metrics: counts and times every attempt."""

from __future__ import annotations

from typing import Any

from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from carillon.telemetry.metrics import Metrics

#: The words of the ledger's outcomes in the metrics' label.
STATUS = {"completed": "success"}


class _Executing:
    """How many attempts of a task execute. A gauge takes a lock for every change; this is read when somebody looks."""

    __slots__ = ("here",)

    def __init__(self) -> None:
        self.here = 0

    def number(self) -> float:
        return self.here


class MetricsMiddleware(TaskiqMiddleware):
    """Keeps the children of the labelled instruments, because looking one up costs more than counting with it."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics
        self._children: dict[tuple[str, str], Any] = {}
        self._executing: dict[str, _Executing] = {}

    def post_send(self, message: TaskiqMessage) -> None:
        """Count a submit."""
        self._child("submitted", message.task_name).inc()

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Count a start."""
        self._active(self._known(message)).here += 1
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Count how long it took."""
        name = self._known(message)
        self._active(name).here -= 1
        self._child("seconds", name).observe(result.execution_time)

    def post_save(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:  # noqa: ARG002
        """Count how it ended: only now is it known whether the ledger took the end."""
        name = self._known(message)
        outcome = message.execution.verdict.outcome  # type: ignore[attr-defined]
        key = (name, outcome)
        if key not in self._children:
            self._children[key] = self._metrics.attempts.labels(name, STATUS.get(outcome, outcome))
        self._children[key].inc()

    @staticmethod
    def _known(message: TaskiqMessage) -> str:
        return message.task_name if message.execution.task is not None else "unknown"  # type: ignore[attr-defined]

    def _active(self, name: str) -> _Executing:
        executing = self._executing.get(name)
        if executing is None:
            executing = self._executing[name] = _Executing()
            self._metrics.active.labels(name).set_function(executing.number)
        return executing

    def _child(self, instrument: str, name: str) -> Any:
        key = (instrument, name)
        if key not in self._children:
            self._children[key] = getattr(self._metrics, instrument).labels(name)
        return self._children[key]
