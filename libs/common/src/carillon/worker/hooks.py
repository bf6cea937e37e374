"""Calling the middlewares' hooks, so that a hook that raises changes nothing but a counter."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import structlog
from taskiq import TaskiqMiddleware, TaskiqResult

from carillon.telemetry.metrics import Metrics
from carillon.worker.execution import RunMessage

log = structlog.get_logger(__name__)


class Hooks:
    """The hooks of a stack: `pre_` from the outside in, `on_` and `post_` from the inside out, as Taskiq calls them."""

    def __init__(self, middlewares: Sequence[TaskiqMiddleware], metrics: Metrics) -> None:
        self._metrics = metrics
        self._pre_execute = [m for m in middlewares if _has(m, "pre_execute")]
        inside_out = list(reversed(middlewares))
        self._on_error = [m for m in inside_out if _has(m, "on_error")]
        self._post_execute = [m for m in inside_out if _has(m, "post_execute")]
        self._post_save = [m for m in inside_out if _has(m, "post_save")]

    async def pre_execute(self, message: RunMessage) -> RunMessage:
        """Let each see, and replace, the message."""
        for middleware in self._pre_execute:
            replaced = await self._call(middleware, "pre_execute", message)
            # A replacement must know its attempt, or nobody could end it.
            if getattr(replaced, "execution", None) is not None:
                message = replaced
        return message

    async def on_error(self, message: RunMessage, result: TaskiqResult[Any], error: BaseException) -> None:
        """Let each see the error."""
        for middleware in self._on_error:
            await self._call(middleware, "on_error", message, result, error)

    async def post_execute(self, message: RunMessage, result: TaskiqResult[Any]) -> None:
        """Let each see the result, before it is in the ledger."""
        for middleware in self._post_execute:
            await self._call(middleware, "post_execute", message, result)

    async def post_save(self, message: RunMessage, result: TaskiqResult[Any]) -> None:
        """Let each see the result, after it is in the ledger."""
        for middleware in self._post_save:
            await self._call(middleware, "post_save", message, result)

    async def _call(self, middleware: TaskiqMiddleware, hook: str, *arguments: object) -> Any:
        try:
            answer = getattr(middleware, hook)(*arguments)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception:
            name = type(middleware).__name__
            self._metrics.hook_failures.labels(name, hook).inc()
            log.exception("middleware hook raised", middleware=name, hook=hook)
            return None


def _has(middleware: TaskiqMiddleware, hook: str) -> bool:
    return getattr(type(middleware), hook) is not getattr(TaskiqMiddleware, hook)
