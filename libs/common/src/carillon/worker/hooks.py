"""Calling the middlewares' hooks, so that a hook that raises changes nothing but a counter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Any, NamedTuple

import structlog
from taskiq import TaskiqMiddleware, TaskiqResult

from carillon.telemetry.metrics import Metrics
from carillon.worker.execution import RunMessage

log = structlog.get_logger(__name__)


class Hook(NamedTuple):
    """One hook of one middleware."""

    middleware: str
    name: str
    call: Callable[..., Any]


class Hooks:
    """The hooks of a stack: `pre_` from the outside in, `on_` and `post_` from the inside out, as Taskiq calls them."""

    def __init__(self, middlewares: Sequence[TaskiqMiddleware], metrics: Metrics) -> None:
        self._metrics = metrics
        inside_out = list(reversed(middlewares))
        self._pre_execute = _hooks(middlewares, "pre_execute")
        self._on_error = _hooks(inside_out, "on_error")
        self._post_execute = _hooks(inside_out, "post_execute")
        self._post_save = _hooks(inside_out, "post_save")

    async def pre_execute(self, message: RunMessage) -> RunMessage:
        """Let each see, and replace, the message."""
        for hook in self._pre_execute:
            replaced = await self._call(hook, message)
            # A replacement must know its attempt, or nobody could end it.
            if getattr(replaced, "execution", None) is not None:
                message = replaced
        return message

    async def on_error(self, message: RunMessage, result: TaskiqResult[Any], error: BaseException) -> None:
        """Let each see the error."""
        for hook in self._on_error:
            await self._call(hook, message, result, error)

    async def post_execute(self, message: RunMessage, result: TaskiqResult[Any]) -> None:
        """Let each see the result, before it is in the ledger."""
        for hook in self._post_execute:
            await self._call(hook, message, result)

    async def post_save(self, message: RunMessage, result: TaskiqResult[Any]) -> None:
        """Let each see the result, after it is in the ledger."""
        for hook in self._post_save:
            await self._call(hook, message, result)

    async def _call(self, hook: Hook, *arguments: object) -> Any:
        try:
            answer = hook.call(*arguments)
            # Plain functions give back nothing, or their message; asking a pydantic model for `__await__` is slow.
            if answer is None or answer is arguments[0]:
                return answer
            return await answer if isawaitable(answer) else answer
        except Exception:
            self._metrics.hook_failures.labels(hook.middleware, hook.name).inc()
            log.exception("middleware hook raised", middleware=hook.middleware, hook=hook.name)
            return None


def _hooks(middlewares: Sequence[TaskiqMiddleware], name: str) -> list[Hook]:
    """Those that a middleware has of its own."""
    return [
        Hook(type(middleware).__name__, name, getattr(middleware, name))
        for middleware in middlewares
        if getattr(type(middleware), name) is not getattr(TaskiqMiddleware, name)
    ]
