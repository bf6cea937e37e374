"""The Taskiq broker: `.kiq()` submits to the ledger, and `taskiq worker` runs Carillon's own worker."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import UUID

from taskiq import AckableMessage, AsyncBroker, AsyncTaskiqTask, BrokerMessage, TaskiqMessage, TaskiqMiddleware
from taskiq.abc.formatter import TaskiqFormatter
from taskiq.exceptions import SendTaskError

from carillon import clock, options
from carillon.arguments import json_args
from carillon.bounds import check_own_labels
from carillon.errors import InvalidArgumentsError
from carillon.ids import keyed_id, new_id
from carillon.ledger.records import NewRun, Submitted
from carillon.middleware.tracing import LABEL
from carillon.platform import Platform
from carillon.run import current_run
from carillon.task import Task
from carillon.times import times_in
from carillon.worker.execution import assembled
from carillon.worker.results import Results
from carillon.workflows.loop import refuse_in_workflow


class Kick(BrokerMessage):
    """A broker message that still knows what it was made from."""

    source: TaskiqMessage


class _Formatter(TaskiqFormatter):
    """Carries the message through as it is: the ledger takes fields, not bytes."""

    def dumps(self, message: TaskiqMessage) -> BrokerMessage:
        return Kick.model_construct(
            task_id=message.task_id, task_name=message.task_name, message=b"", labels=message.labels, source=message
        )

    def loads(self, message: bytes) -> TaskiqMessage:
        return TaskiqMessage.model_validate_json(message)


class CarillonBroker(AsyncBroker):
    """Connects declared tasks to a platform.

    `run_worker` is what `listen` runs: under `taskiq worker` the Taskiq receiver gets no messages, because Carillon's
    own receiver takes them (decision 0003).
    """

    def __init__(
        self,
        platform: Platform,
        tasks: Sequence[Task[..., Any]],
        middlewares: Sequence[TaskiqMiddleware],
        results: Results,
        run_worker: Callable[[asyncio.Event], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        super().__init__()
        self.platform = platform
        self.formatter = _Formatter()
        self.id_generator = lambda: str(new_id())
        self.results = results
        self.result_backend = results
        self.add_middlewares(*middlewares)
        for task in tasks:
            task.broker = self
            self.local_task_registry[task.task_name] = task
        self._run_worker = run_worker
        self._stop = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def kick(self, message: BrokerMessage) -> None:
        """Accept a run. When this returns it is durable; raises what `Platform.submit` raises.

        The message then has the id of the run that stands for it, which is another one's where a unique key said so.
        """
        refuse_in_workflow(message.task_name)
        assert isinstance(message, Kick)  # noqa: S101 - our formatter made it
        submitted = await self.platform.submit(self._new_run(message.source, UUID(message.source.task_id)))
        message.source.task_id = str(submitted.id)

    async def kick_one(
        self, task: Task[..., Any], args: Sequence[Any], arguments: Mapping[str, Any]
    ) -> AsyncTaskiqTask[Any]:
        """What Taskiq's `kiq` does for a task without options, without what its kicker costs (`bench/README.md`)."""
        refuse_in_workflow(task.task_name)
        run = new_id()
        message = await self._before_sending(run, task, args, arguments, {})
        try:
            submitted = await self.platform.submit(self._new_run(message, run))
        except Exception as error:
            raise SendTaskError from error
        await self._after_sending(message, run, submitted)
        return AsyncTaskiqTask(message.task_id, self.result_backend, task.return_type)

    async def kick_many(
        self, task: Task[..., Any], calls: Sequence[Mapping[str, Any]], labels: Mapping[str, Any], *, first: int
    ) -> list[str]:
        """Accept a run for each call, by the names of its arguments, and give back their ids, in order.

        `labels` are on each of them, beside the task's own. `first` is the place of the first among all the calls that
        share an idempotency key. When this returns they are durable; raises what `Platform.submit_many` raises.
        """
        refuse_in_workflow(task.task_name)
        sent = [(run := new_id(), await self._before_sending(run, task, (), given, labels)) for given in calls]
        runs = [self._new_run(message, run, place=first + at) for at, (run, message) in enumerate(sent)]
        accepted = await self.platform.submit_many(runs)
        for submitted, (run, message) in zip(accepted, sent, strict=True):
            await self._after_sending(message, run, submitted)
        return [message.task_id for _, message in sent]

    async def _before_sending(
        self,
        run: UUID,
        task: Task[..., Any],
        args: Sequence[Any],
        arguments: Mapping[str, Any],
        labels: Mapping[str, Any],
    ) -> TaskiqMessage:
        message = assembled(
            TaskiqMessage,
            task_id=str(run),
            task_name=task.task_name,
            labels={**task.labels, **labels},
            labels_types=None,
            args=list(args),
            kwargs=dict(arguments),
        )
        for middleware in self.middlewares:
            if type(middleware).pre_send is not TaskiqMiddleware.pre_send:
                sent = middleware.pre_send(message)
                # Ours are plain functions, and to ask whether a message is to be awaited costs as much as they do.
                message = sent if isinstance(sent, TaskiqMessage) else await sent
        return message

    async def _after_sending(self, message: TaskiqMessage, run: UUID, submitted: Submitted) -> None:
        if submitted.id is not run:
            message.task_id = str(submitted.id)
        for middleware in reversed(self.middlewares):
            if type(middleware).post_send is not TaskiqMiddleware.post_send:
                told = middleware.post_send(message)
                # Most give nothing back, and to ask whether that is to be awaited costs as much as they do.
                if told is not None and inspect.isawaitable(told):
                    await told

    def _new_run(self, source: TaskiqMessage, run: UUID, *, place: int | None = None) -> NewRun:
        task = self.local_task_registry.get(source.task_name)
        arguments = task.bind(source.args, source.kwargs) if isinstance(task, Task) else _named(source)
        labels, own = source.labels, options.own_labels(source.labels)
        own.pop(LABEL, None)
        if own:
            # Those of `options` were looked at there; Taskiq's own `with_labels` takes anything.
            check_own_labels(own)
        key, times, parent = options.key_in(labels), times_in(labels, clock.now()), current_run.get()
        return NewRun(
            id=run if key is None else keyed_id(source.task_name, key, place=place),
            domain=source.task_name.partition(".")[0],
            task=source.task_name,
            args=json_args(arguments),
            labels=own,
            priority=options.priority_in(labels),
            run_at=times.run_at,
            expires_at=times.expires_at,
            idempotency_key=key,
            parent_id=None if parent is None else parent.id,
            deadline_at=options.deadline_of(times.deadline_at, None if parent is None else parent.deadline_at),
            callback_url=options.callback_url_in(labels),
            unique=options.unique_in(labels) or (task.unique if isinstance(task, Task) else None),
            after=options.after_in(labels),
            actor=self.platform.name,
            traceparent=labels.get(LABEL),
        )

    async def listen(self) -> AsyncGenerator[bytes | AckableMessage, None]:
        """Run Carillon's worker until Taskiq stops listening."""
        if self._run_worker is None:
            message = "this broker only submits; run the service that owns the tasks"
            raise RuntimeError(message)
        self._worker = asyncio.create_task(self._run_worker(self._stop))
        await asyncio.shield(self._worker)
        yield b""  # reached by nobody; it makes this a generator, as Taskiq wants

    async def shutdown(self) -> None:
        """Drain the worker, then close. Taskiq calls this after it stopped listening."""
        self._stop.set()
        if self._worker is not None:
            await self._worker
        await super().shutdown()


def _named(source: TaskiqMessage) -> dict[str, Any]:
    if source.args:
        message = f"{source.task_name} is not declared here, so its arguments must be given by name"
        raise InvalidArgumentsError(message)
    return dict(source.kwargs)
