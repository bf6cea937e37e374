"""Declaring tasks, workflows and what answers events. Nothing here connects to anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, Unpack

from carillon.contracts import Event
from carillon.errors import ConfigurationError
from carillon.policies import Policies
from carillon.run import Run
from carillon.task import Task
from carillon.terms import OnFailure, Terms
from carillon.unconnected import UnconnectedBroker
from carillon.workflows.declared import WorkflowTask

Params = ParamSpec("Params")
Returned = TypeVar("Returned")


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

    def workflow(
        self,
        *,
        version: int = 1,
        awaits: Iterable[type[Event]] = (),
        default: bool = False,
        labels: Mapping[str, str] | None = None,
        on_failure: OnFailure | None = None,
    ) -> Callable[[Callable[Params, Coroutine[Any, Any, Returned]]], WorkflowTask[Params, Returned]]:
        """Declare a workflow: an async function whose awaited steps are recorded, so that it goes on where it stopped.

        Its arguments are those of a task, and it has the keyword-only parameter `flow: carillon.Workflow`. While it
        waits, for days if need be, it holds no slot of a worker and no message of the broker. `awaits` names the events
        that it waits for; `default` and `on_failure` are as of a task. It has no policy of its own: each step has that
        of its task, and what leaves the function fails the run.

        The function is executed again over its record whenever it goes on, so for the same record it has to do the
        same: where it does not, the run fails and says at which step. When you change it, runs that are under way go on
        in the new code as long as that asks for the same steps that are recorded. Where it does not, give it the next
        `version`, and keep the old one beside it with `@name.earlier(version=1)`: each run stays with the version that
        it began with, and fails with a sentence about it where that is gone.
        """

        def declare(
            function: Callable[Params, Coroutine[Any, Any, Returned]],
        ) -> WorkflowTask[Params, Returned]:
            task = WorkflowTask(
                self._broker,
                self.domain,
                function,
                version=version,
                awaits=awaits,
                is_default=default,
                labels=labels,
                on_failure=on_failure,
            )
            self._declare(task)
            return task

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
            if isinstance(task, WorkflowTask):
                continue
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
