"""One declared task: its owner's policy, its arguments' schema, what it needs and what it says."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, ParamSpec, TypeVar, Union, Unpack

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import to_json
from taskiq import AsyncTaskiqDecoratedTask, AsyncTaskiqTask
from taskiq.kicker import AsyncKicker

from carillon.contracts import Event
from carillon.errors import ConfigurationError, InvalidArgumentsError
from carillon.many import submit_many
from carillon.options import SubmitOptions, labels_of, own_labels, priority_in, shown
from carillon.retry import Budget, Retry
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
    def schema(self) -> dict[str, Any]:
        """The JSON schema of the arguments."""
        return self.arguments.model_json_schema()

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

    @cached_property
    def decode(self) -> Callable[[Any], Any]:
        """Makes of a result, as JSON says it, what the function is annotated to return."""
        returns = self._hints.get("return")
        return (lambda result: result) if returns is None else TypeAdapter(returns).validate_python

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
            "schema": self.schema,
            "policy": self.policy,
            "hears": self.hears and self.hears.type,
            "says": [contract.type for contract in self.says],
            "is_default": self.is_default,
        }


def _events_in(annotation: Any) -> Iterable[type[Event]]:
    if isinstance(annotation, type) and issubclass(annotation, Event):
        yield annotation
    elif typing.get_origin(annotation) in {Union, types.UnionType}:
        for part in typing.get_args(annotation):
            yield from _events_in(part)
