"""Declaring workflows: their versions, and what they wait for."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack

from carillon.contracts import Event
from carillon.errors import ConfigurationError
from carillon.retry import NEVER
from carillon.task import Task
from carillon.terms import OnFailure
from carillon.unconnected import UnconnectedBroker
from carillon.workflows.flow import Workflow

Params = ParamSpec("Params")
Returned = TypeVar("Returned")
Code = Callable[Params, Coroutine[Any, Any, Returned]]


class _Declared(TypedDict, total=False):
    is_default: bool
    labels: Mapping[str, str] | None
    on_failure: OnFailure | None


class WorkflowTask(Task[Params, Coroutine[Any, Any, Returned]]):
    """A declared workflow: a task whose function is executed again over its record."""

    def __init__(
        self,
        broker: UnconnectedBroker,
        domain: str,
        function: Code[Params, Returned],
        *,
        version: int = 1,
        awaits: Iterable[type[Event]] = (),
        **declared: Unpack[_Declared],
    ) -> None:
        super().__init__(broker, domain, function, retry=NEVER, **declared)
        if not self.is_async:
            message = f"{self.task_name} is a workflow, so it must be async: `async def {self.function_name}(...)`"
            raise ConfigurationError(message)
        if list(self.needs.values()) != [Workflow]:
            message = (
                f"{self.task_name} is a workflow: it has one keyword-only parameter, `flow: carillon.Workflow`, and "
                "what needs anything else is a task, which it awaits with `flow.step(...)`"
            )
            raise ConfigurationError(message)
        if version < 1:
            message = f"{self.task_name} has version={version}; versions are counted from 1"
            raise ConfigurationError(message)
        self.version = version
        self.awaits = tuple(awaits)
        self._earlier: dict[int, WorkflowTask[..., Any]] = {}

    @property
    def parameter(self) -> str:
        """The name under which the code gets its workflow."""
        return next(iter(self.needs))

    def earlier(self, *, version: int) -> Callable[[Code[..., Any]], WorkflowTask[..., Any]]:
        """Keep the code of an earlier version, for the runs that began with it.

        Its function may be called whatever you like. Raises `ConfigurationError` for a version that is none, or taken.
        """
        if not 1 <= version < self.version or version in self._earlier:
            message = f"{self.task_name} is at version {self.version}, and cannot have an earlier {version} (too)"
            raise ConfigurationError(message)

        def keep(function: Code[..., Any]) -> WorkflowTask[..., Any]:
            broker = UnconnectedBroker(self.domain)
            kept = WorkflowTask(broker, self.domain, function, version=version, awaits=self.awaits)
            self._earlier[version] = kept
            return kept

        return keep

    def at(self, version: int) -> WorkflowTask[..., Any] | None:
        """Its code at a version; None where that is not kept."""
        return self if version == self.version else self._earlier.get(version)

    @cached_property
    def code(self) -> str:
        """What tells one state of its code from another: 16 characters of a SHA-256; comments and layout do not."""
        return sha256(_text_of(self.original_func).encode()).hexdigest()[:16]

    @property
    def policy(self) -> dict[str, Any]:
        """The owner's policy as the catalogue shows it: of a workflow its version, and what it waits for."""
        shown = {"version": self.version, "earlier": sorted(self._earlier), "awaits": [e.type for e in self.awaits]}
        return {**super().policy, "workflow": shown}


def _text_of(function: Callable[..., Any]) -> str:
    """The source of a function without comments, layout and docstring; its byte code where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return repr((function.__code__.co_code, function.__code__.co_names, function.__code__.co_consts))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # How it is declared is no part of what it does.
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    return ast.dump(tree)
