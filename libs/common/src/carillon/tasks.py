"""Declaring tasks and what answers events. Nothing here connects to anything."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, ParamSpec, TypeVar, Union, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_json
from taskiq import AsyncTaskiqDecoratedTask, AsyncTaskiqTask
from taskiq.kicker import AsyncKicker

from carillon.contracts import Event
from carillon.errors import ConfigurationError, InvalidArgumentsError
from carillon.many import submit_many
from carillon.options import SubmitOptions, labels_of, own_labels, priority_in, shown
from carillon.policies import Policies
from carillon.retry import Budget, Retry
from carillon.run import Run
from carillon.terms import DEFAULT_GRACE, DEFAULT_TIMEOUT, Terms, check_terms
from carillon.unconnected import UnconnectedBroker

Params = ParamSpec("Params")
Returned = TypeVar("Returned")


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
        hears: type[Event] | None = None,
        is_default: bool = False,
        labels: Mapping[str, str] | None = None,
        **terms: Unpack[Terms],
    ) -> None:
        self.function_name = function.__name__
        super().__init__(
            broker=broker,
            task_name=f"{domain}.{function.__name__}",
            original_func=function,
            labels=dict(labels or {}),
        )
        check_terms(self.task_name, terms, self.labels)
        self.domain = domain
        self.timeout = terms.get("timeout", DEFAULT_TIMEOUT)
        self.grace = terms.get("grace", DEFAULT_GRACE)
        self.retry = terms.get("retry", Retry())
        #: Spreads the retries that this process decides on.
        self.budget = Budget(self.retry)
        self.hears = hears
        self.on_failure = terms.get("on_failure")
        self.is_default = is_default
        self.limits = terms.get("limits")
        self.unique = terms.get("unique")
        self.doc = inspect.cleandoc(function.__doc__ or "")
        self.is_async = inspect.iscoroutinefunction(function)
        self.process = terms.get("process", False)
        self.silent_after = terms.get("silent_after")
        if self.process and self.is_async:
            message = f"{self.task_name} is async: it is cancelled where it awaits, so leave out `process=True`"
            raise ConfigurationError(message)
        if self.limits is not None:
            self.limits.check(self.task_name, self.argument_names)

    @property
    def home(self) -> tuple[str, str]:
        """The module, by the name that another process can import it with, and the name of the task in it."""
        module = self.original_func.__module__
        spec = getattr(sys.modules.get(module), "__spec__", None)
        return (spec.name if module == "__main__" and spec is not None else module), self.function_name

    def options(self, **options: Unpack[SubmitOptions]) -> AsyncKicker[Params, Returned]:
        """Say how the next run is to run: `await task.options(delay=timedelta(minutes=5)).kiq(...)`.

        With `unique`, `kiq` gives back the run that is there where the key is taken, or raises `SendTaskError` from a
        `UniqueConflictError`. Raises `InvalidArgumentsError` for a label with an option's name.
        """
        return self.kicker().with_labels(**labels_of(options))

    if not typing.TYPE_CHECKING:  # Taskiq's own says what comes back for which function.

        async def kiq(self, *args: Any, **kwargs: Any) -> AsyncTaskiqTask[Any]:
            """Submit a run with these arguments, and give back what its result is waited for with.

            Raises Taskiq's `SendTaskError` from what was wrong. `options(...).kiq()` says more than the arguments.
            """
            return await self.broker.kick_one(self, args, kwargs)

    async def kiq_many(
        self, calls: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> list[AsyncTaskiqTask[Any]]:
        """Submit one run for each call, given as its arguments by name, and give back what `kiq` does, in order.

        Costs a fraction of as many `kiq()`: runs are accepted 1,000 at a time, and the calls are read as they are
        needed. `options` are those of every run; a span such as `delay` counts from the moment its run is submitted.

        One `idempotency_key` is for the whole: what tells the runs apart is their place among the calls, as in a batch
        over HTTP. So whoever does not know how far an earlier try came submits only what is missing, by the same calls
        in the same order: `kiq_many(calls, idempotency_key=f"invoices of {month}")`.

        Raises `carillon.many.NotAllAcceptedError`, a `SendTaskError` as `kiq` raises, which has the runs of the
        thousands before, and `InvalidArgumentsError` for options that do not fit, before anything is submitted.
        """
        return await submit_many(self, calls, options)

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
            "silent_after_seconds": None if self.silent_after is None else self.silent_after.total_seconds(),
            "process": self.process,
            **self.retry.shown,
            **({} if self.limits is None else {"limits": self.limits.shown}),
            **({} if self.unique is None else {"unique": shown(self.unique)}),
            **({"labels": own} if (own := own_labels(self.labels)) else {}),
            **({"priority": priority_in(self.labels)} if "priority" in self.labels else {}),
        }

    def entry(self, queue: str) -> dict[str, Any]:
        """What the catalogue keeps of it; its runs are on that queue."""
        return {
            "name": self.task_name,
            "queue": queue,
            "doc": self.doc,
            "schema": self.arguments.model_json_schema(),
            "policy": self.policy,
            "hears": self.hears and self.hears.type,
            "says": [contract.type for contract in self.says],
            "is_default": self.is_default,
        }


class Tasks:
    """The tasks of one domain, declared with decorators in its `tasks.py` and `events.py`."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.declared: dict[str, Task[..., Any]] = {}
        self._broker = UnconnectedBroker(domain)

    def task(
        self, *, default: bool = False, labels: Mapping[str, str] | None = None, **terms: Unpack[Terms]
    ) -> Callable[[Callable[Params, Returned]], Task[Params, Returned]]:
        """Declare a task. Its name is the domain's and the function's: `backup.back_up_database`.

        `on_failure` makes what is said when the last attempt failed; of a run that ends failed because its workers kept
        dying nothing is said. `default` makes it the one that a kick of the domain means when it names none.

        `limits` hold over all workers. Where a new version declares others, what waits goes by the new ones at once,
        under the key that it was submitted with; what was submitted while there were none starts without.

        `unique` holds for whoever submits a run, and says no other: by `kiq`, over HTTP, or on the command line.

        A coroutine is cancelled when `timeout` is over, or when somebody cancels the run, and may clean up. After
        `grace` the attempt ends anyway: what goes on executing is abandoned, and keeps its slot of the worker until it
        really ends, because it still uses what the slot stands for. A result that it returns in time counts.

        A plain function runs in a thread, and *a thread cannot be killed*: it has to ask `run.cancelled`, or call
        `run.check()`, now and then. The attempt ends at `timeout` whatever the function does; the function keeps its
        slot until it returns, and until then no other attempt of its run begins in the same worker. On another worker
        one may, so it must be safe to run twice at the same time, too.

        With `process` a plain function runs in a child process of the worker (decision 0016). At `timeout`, or when
        somebody cancels the run, `Stopped` is raised at whatever line it is, once; after `grace` the process is killed,
        with what it started, and the slot is free. It has its arguments and `run`, and none of the service's resources.

        An attempt that reports nothing for `silent_after`, neither progress nor `run.beat()`, is taken for hung: it is
        stopped as if its time were up, and tried again by policy.
        """

        def declare(function: Callable[Params, Returned]) -> Task[Params, Returned]:
            return self._declare(Task(self._broker, self.domain, function, is_default=default, labels=labels, **terms))

        return declare

    def hears(
        self, event: type[Event], *, labels: Mapping[str, str] | None = None, **terms: Unpack[Terms]
    ) -> Callable[[Callable[Params, Returned]], Task[Params, Returned]]:
        """Declare what answers an event: a task whose one argument is `event`."""

        def declare(function: Callable[Params, Returned]) -> Task[Params, Returned]:
            task = self._declare(Task(self._broker, self.domain, function, hears=event, labels=labels, **terms))
            if task.argument_names != ("event",):
                message = f"{task.task_name} answers an event, so its one argument must be named `event`"
                raise ConfigurationError(message)
            if task.unique is not None:
                message = f"{task.task_name} answers an event, and an event is one run already; leave out `unique`"
                raise ConfigurationError(message)
            return task

        return declare

    def _declare(self, task: Task[Params, Returned]) -> Task[Params, Returned]:
        if task.task_name in self.declared:
            message = f"{task.task_name} is declared twice; rename one of the functions"
            raise ConfigurationError(message)
        self.declared[task.task_name] = task
        return task

    def check(self, resources: Iterable[type]) -> None:
        """Refuse tasks that need what nobody provides; raises `ConfigurationError` naming both."""
        provided = {Run, Policies, *resources}
        for task in self.declared.values():
            for name, kind in task.needs.items():
                if kind not in provided:
                    wanted = getattr(kind, "__name__", kind)
                    message = f"{task.task_name} needs `{name}: {wanted}`, which its service does not provide"
                    raise ConfigurationError(message)
            if task.process:
                _check_process(task)
            elif not task.is_async and Policies in task.needs.values():
                message = f"{task.task_name} needs `Policies`, which are for coroutines; write `async def`"
                raise ConfigurationError(message)
            if task.silent_after is not None and Run not in task.needs.values():
                message = f"{task.task_name} has silent_after, so it must be able to report: give it `*, run: Run`"
                raise ConfigurationError(message)


def _check_process(task: Task[..., Any]) -> None:
    """Refuse what another process could not find, or could not call."""
    for name, kind in task.needs.items():
        if kind is not Run:
            wanted = getattr(kind, "__name__", kind)
            message = (
                f"{task.task_name} needs `{name}: {wanted}`, and in a process of its own it can have `run: Run` alone; "
                "make what it needs from its arguments, or leave out `process=True`"
            )
            raise ConfigurationError(message)
    module, name = task.home
    home = sys.modules.get(task.original_func.__module__)
    if module == "__main__" or getattr(home, name, None) is not task:
        message = (
            f"{task.task_name} runs in a process of its own, which imports it as {module}.{name}, and that is another "
            "thing or none; declare it at the top level of a module that can be imported, under its own name"
        )
        raise ConfigurationError(message)


def _events_in(annotation: Any) -> Iterable[type[Event]]:
    if isinstance(annotation, type) and issubclass(annotation, Event):
        yield annotation
    elif typing.get_origin(annotation) in {Union, types.UnionType}:
        for part in typing.get_args(annotation):
            yield from _events_in(part)
