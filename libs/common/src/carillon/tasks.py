"""Declaring tasks and what answers events. Nothing here connects to anything."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from itertools import islice
from typing import Any, ParamSpec, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_json
from taskiq import AsyncTaskiqDecoratedTask, AsyncTaskiqTask
from taskiq.exceptions import SendTaskError

from carillon.contracts import Event
from carillon.errors import ConfigurationError, InvalidArgumentsError
from carillon.retry import Budget, Retry
from carillon.run import Run
from carillon.unconnected import UnconnectedBroker

Params = ParamSpec("Params")
Returned = TypeVar("Returned")

#: Makes the event that a run says which ended failed, of its arguments and the error of its last attempt.
OnFailure = Callable[[Mapping[str, Any], BaseException], Event]

#: Runs that `kiq_many` submits together.
MOST_TOGETHER = 1_000
#: A task without a timeout of its own may run this long.
DEFAULT_TIMEOUT = timedelta(minutes=5)
#: And this long it may clean up when it is stopped.
DEFAULT_GRACE = timedelta(seconds=10)


class Task(AsyncTaskiqDecoratedTask[Params, Returned]):
    """One declared task: a Taskiq task with its owner's policy, its arguments' schema and what it needs.

    Parameters that can be given by position are the arguments; keyword-only parameters are injected by type.
    """

    def __init__(
        self,
        broker: UnconnectedBroker,
        domain: str,
        function: Callable[Params, Returned],
        *,
        timeout: timedelta,
        grace: timedelta,
        retry: Retry,
        hears: type[Event] | None,
        on_failure: OnFailure | None,
        is_default: bool,
        labels: Mapping[str, str],
    ) -> None:
        self.function_name = function.__name__
        super().__init__(
            broker=broker,
            task_name=f"{domain}.{function.__name__}",
            original_func=function,
            labels=dict(labels),
        )
        self.domain = domain
        self.timeout = timeout
        self.grace = grace
        self.retry = retry
        #: Spreads the retries that this process decides on.
        self.budget = Budget(retry)
        self.hears = hears
        self.on_failure = on_failure
        self.is_default = is_default
        self.doc = inspect.cleandoc(function.__doc__ or "")
        self.is_async = inspect.iscoroutinefunction(function)

    async def kiq_many(self, calls: Iterable[Mapping[str, Any]]) -> list[AsyncTaskiqTask[Any]]:
        """Submit one run for each call, given as its arguments by name, and give back what `kiq` does, in order.

        Costs a fraction of as many `kiq()`: runs are accepted 1,000 at a time, and the calls are read as they are
        needed. Raises as `kiq` does; then the thousands before are accepted. Labels are the task's own; calls that
        need others, such as an idempotency key, take `kicker().with_labels(...).kiq()`.
        """
        broker: Any = self.broker
        accepted: list[AsyncTaskiqTask[Any]] = []
        waiting = iter(calls)
        while batch := list(islice(waiting, MOST_TOGETHER)):
            try:
                ids = await broker.kick_many(self, batch)
            except Exception as error:
                raise SendTaskError from error
            accepted += [AsyncTaskiqTask(id_, broker.result_backend, self.return_type) for id_ in ids]
        return accepted

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.original_func, include_extras=True)

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.original_func).parameters

    @cached_property
    def arguments(self) -> type[BaseModel]:
        """The model of the arguments; unknown ones are refused."""
        fields: dict[str, Any] = {}
        for name in self.argument_names:
            default = self._parameters[name].default
            fields[name] = (self._hints.get(name, Any), ... if default is inspect.Parameter.empty else Field(default))
        return create_model(self.function_name, __config__=ConfigDict(extra="forbid"), **fields)

    @cached_property
    def argument_names(self) -> tuple[str, ...]:
        """The names of the arguments, in order."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        return tuple(name for name, parameter in self._parameters.items() if parameter.kind in kinds)

    @cached_property
    def needs(self) -> dict[str, type]:
        """The types of what is injected, by parameter name; `Run` is always there."""
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        return {name: self._hints.get(name, object) for name, p in self._parameters.items() if p.kind is keyword_only}

    @cached_property
    def says(self) -> tuple[type[Event], ...]:
        """The events in the return annotations, on success and failure; those said with `run.say` are not visible."""
        failure = typing.get_type_hints(self.on_failure).get("return") if self.on_failure else None
        return (*_events_in(self._hints.get("return")), *_events_in(failure))

    def bind(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name; raises `InvalidArgumentsError` where they do not fit the parameters' names."""
        args = list(args)
        if len(args) > len(self.argument_names):
            message = f"{self.task_name} takes {len(self.argument_names)} arguments, {len(args)} were given"
            raise InvalidArgumentsError(message)
        named = dict(zip(self.argument_names, args, strict=False))
        if twice := sorted(named.keys() & kwargs.keys()):
            message = f"{self.task_name} was given {', '.join(twice)} twice"
            raise InvalidArgumentsError(message)
        return named | dict(kwargs)

    def validated(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function wants them; raises `InvalidArgumentsError` saying what does not fit.

        Strict, as the published schema is: `"1"` and `true` are no integers, but a moment or an id is a string.
        """
        try:
            model = self.arguments.model_validate_json(to_json(arguments), strict=True)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5])
            message = f"the arguments of {self.task_name} do not fit: {faults}"
            raise InvalidArgumentsError(message) from None
        return {name: getattr(model, name) for name in self.argument_names}

    @property
    def policy(self) -> dict[str, Any]:
        """The owner's policy as the catalogue shows it; durations in seconds."""
        return {
            "timeout_seconds": self.timeout.total_seconds(),
            "grace_seconds": self.grace.total_seconds(),
            **self.retry.shown,
        }


class Tasks:
    """The tasks of one domain, declared with decorators in its `tasks.py` and `events.py`."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.declared: dict[str, Task[..., Any]] = {}
        self._broker = UnconnectedBroker(domain)

    def task(
        self,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        grace: timedelta = DEFAULT_GRACE,
        retry: Retry | None = None,
        on_failure: OnFailure | None = None,
        default: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> Callable[[Callable[Params, Returned]], Task[Params, Returned]]:
        """Declare a task. Its name is the domain's and the function's: `backup.back_up_database`.

        `on_failure` makes what is said when the last attempt failed; of a run that ends failed because its workers kept
        dying nothing is said. `default` makes it the one that a kick of the domain means when it names none.

        A coroutine is cancelled when `timeout` is over, or when somebody cancels the run, and may clean up. After
        `grace` the attempt ends anyway: what goes on executing is abandoned, and keeps its slot of the worker until it
        really ends, because it still uses what the slot stands for. A result that it returns in time counts.

        A plain function runs in a thread, and *a thread cannot be killed*: it has to ask `run.cancelled`, or call
        `run.check()`, now and then. The attempt ends at `timeout` whatever the function does; the function keeps its
        slot until it returns, and until then no other attempt of its run begins in the same worker. On another worker
        one may, so it must be safe to run twice at the same time, too.
        """

        def declare(function: Callable[Params, Returned]) -> Task[Params, Returned]:
            return self._declare(function, timeout, grace, retry, None, on_failure, default, labels)

        return declare

    def hears(
        self,
        event: type[Event],
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        grace: timedelta = DEFAULT_GRACE,
        retry: Retry | None = None,
        on_failure: OnFailure | None = None,
    ) -> Callable[[Callable[Params, Returned]], Task[Params, Returned]]:
        """Declare what answers an event: a task whose one argument is `event`."""

        def declare(function: Callable[Params, Returned]) -> Task[Params, Returned]:
            task = self._declare(function, timeout, grace, retry, event, on_failure, False, None)
            if task.argument_names != ("event",):
                message = f"{task.task_name} answers an event, so its one argument must be named `event`"
                raise ConfigurationError(message)
            return task

        return declare

    def _declare(
        self,
        function: Callable[Params, Returned],
        timeout: timedelta,
        grace: timedelta,
        retry: Retry | None,
        hears: type[Event] | None,
        on_failure: OnFailure | None,
        is_default: bool,
        labels: Mapping[str, str] | None,
    ) -> Task[Params, Returned]:
        task = Task(
            self._broker,
            self.domain,
            function,
            timeout=timeout,
            grace=grace,
            retry=retry or Retry(),
            hears=hears,
            on_failure=on_failure,
            is_default=is_default,
            labels=labels or {},
        )
        if task.task_name in self.declared:
            message = f"{task.task_name} is declared twice; rename one of the functions"
            raise ConfigurationError(message)
        self.declared[task.task_name] = task
        return task

    def check(self, resources: Iterable[type]) -> None:
        """Refuse tasks that need what nobody provides; raises `ConfigurationError` naming both."""
        provided = {Run, *resources}
        for task in self.declared.values():
            for name, kind in task.needs.items():
                if kind not in provided:
                    wanted = getattr(kind, "__name__", kind)
                    message = f"{task.task_name} needs `{name}: {wanted}`, which its service does not provide"
                    raise ConfigurationError(message)


def _events_in(annotation: Any) -> Iterable[type[Event]]:
    if isinstance(annotation, type) and issubclass(annotation, Event):
        yield annotation
    elif typing.get_origin(annotation) in {Union, types.UnionType}:
        for part in typing.get_args(annotation):
            yield from _events_in(part)
