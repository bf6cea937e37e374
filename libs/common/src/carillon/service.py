"""A service: what one deployable is made of, and how it runs as a process."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from litestar.types import ControllerRouterHandler
from taskiq import TaskiqMiddleware

from carillon import middleware
from carillon.contracts import BreakerChanged, Event
from carillon.errors import ConfigurationError
from carillon.http import OperationsServer, Web
from carillon.ids import new_id
from carillon.ledger.schedules import Schedule
from carillon.limits import check_number
from carillon.platform import Platform
from carillon.policies import Policies
from carillon.settings import PlatformSettings
from carillon.task import Task
from carillon.tasks import Tasks
from carillon.telemetry.logs import configure_logs
from carillon.telemetry.metrics import Metrics
from carillon.telemetry.traces import configure_traces
from carillon.worker.broker import CarillonBroker
from carillon.worker.gatekeeper import Gatekeeper
from carillon.worker.receiver import Receiver
from carillon.worker.results import results_of
from carillon.worker.sweeper import Sweeper
from carillon.worker.worker import Worker
from carillon.workflows.declared import WorkflowTask

log = structlog.get_logger(__name__)

Resources = Callable[[Platform], AbstractAsyncContextManager[Mapping[type, object]]]
Routes = Callable[[Platform, Metrics], Web | Sequence[ControllerRouterHandler]]
#: Something that runs beside everything else until `stop` is set, such as the scheduler's clock.
Background = Callable[[Platform, Metrics, asyncio.Event], Coroutine[Any, Any, None]]


@asynccontextmanager
async def _nothing(_: Platform) -> AsyncIterator[Mapping[type, object]]:
    yield {}


@dataclass(frozen=True, kw_only=True)
class Service:
    """One deployable. Its `app.py` builds one; nothing happens before `run`."""

    name: str
    settings: PlatformSettings
    tasks: Tasks | None = None
    resources: Resources = _nothing
    #: The package of its Alembic environment, such as `backup.migrations`.
    migrations: str | None = None
    #: Schedules that exist as long as they are here; people may pause them.
    schedules: Sequence[Schedule] = ()
    #: Taskiq middlewares of its own, inside the four of the platform.
    middlewares: Sequence[TaskiqMiddleware] = ()
    #: Events that its tasks say with `run.say`, beside those in return annotations.
    says: Sequence[type[Event]] = ()
    #: Runs that one worker process executes at once.
    concurrency: int = 10
    #: Runs that all its workers execute at once, whatever their task; None for as many as they can. With a limit, every
    #: run of the domain is let in by it, which takes a few milliseconds and another write each.
    limit: int | None = None
    #: Where /metrics, /health, /asyncapi.json and the service's own routes are served; 0 picks a free port.
    port: int = 0
    routes: Routes | None = None
    background: Background | None = None
    #: Each says as a sentence why the process is not ready, or None.
    probes: Sequence[Callable[[], str | None]] = ()
    metrics: Metrics = field(default_factory=Metrics)
    #: Makes its platform, of the settings and its name; the in-memory twin is another.
    opens: Callable[..., Platform] = Platform

    def __post_init__(self) -> None:
        """Refuse a concurrency of nothing, and a limit that could not be kept."""
        check_number("concurrency", self.concurrency)
        if self.limit is not None:
            check_number("limit", self.limit)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Run until SIGTERM or SIGINT, or until `stop` is set; then drain."""
        if stop is None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        _collect_garbage_rarely()
        configure_logs(self.name, style=self.settings.carillon_log_format, level=self.settings.carillon_log_level)
        traces = configure_traces(self.name)
        try:
            async with self.opens(self.settings, name=self.name) as platform:
                await self._serve(platform, stop)
        except BaseExceptionGroup as errors:
            # One part failed and took the others with it: its sentence is the one to show.
            raise errors.exceptions[0] from None
        finally:
            await asyncio.to_thread(traces.shutdown)

    def broker(self) -> CarillonBroker:
        """The domain's broker, for `taskiq worker`: listening runs the worker of this service."""
        platform = self.opens(self.settings, name=self.name)
        # Several such processes share a machine, so each picks a port of its own.
        return self._broker(platform, run_worker=replace(self, port=0).run)

    async def _serve(self, platform: Platform, stop: asyncio.Event) -> None:
        async with AsyncExitStack() as open_, asyncio.TaskGroup() as group:
            resources = await open_.enter_async_context(self.resources(platform))
            await self._register(platform, resources)
            routes = () if self.routes is None else self.routes(platform, self.metrics)
            web = routes if isinstance(routes, Web) else Web(routes=routes)
            address = (self.settings.carillon_host, self.port)
            server = OperationsServer(self.name, platform, self.metrics, address, web, self.probes)
            group.create_task(server.run(stop))
            if self.background is not None:
                group.create_task(self.background(platform, self.metrics, stop))
            if self.tasks is not None:
                broker = self._broker(platform)
                await broker.startup()
                open_.push_async_callback(broker.shutdown)
                group.create_task(self._worker(platform, resources, broker).run(stop))

    async def _register(self, platform: Platform, resources: Mapping[type, object]) -> None:
        """Enter in the ledger what this service offers."""
        await platform.schedules.ship(self.name, self.schedules)
        if self.tasks is None:
            return
        self.tasks.check(resources)
        for task in self._declared:
            if not task.doc:
                message = f"{task.task_name} has no docstring; say in it what it does, and why it is safe to run twice"
                raise ConfigurationError(message)
        hears, says = self._hears, self._says
        from carillon.transports.rabbitmq_events import asyncapi  # noqa: PLC0415 - FastStream is 20 MB, needed once

        document = asyncapi(self.name, self.settings.rabbit_queue_prefix, hears, says)
        types = [_contract_row(contract) for contract in dict.fromkeys((*hears, *says))]
        queue = f"{self.settings.rabbit_queue_prefix}.{self.name}.tasks"
        rows = [task.entry(queue) for task in self._declared]
        await platform.catalogue.register(self.name, rows, types, document, limit=self.limit)

    def _broker(
        self, platform: Platform, run_worker: Callable[[asyncio.Event], Coroutine[Any, Any, None]] | None = None
    ) -> CarillonBroker:
        stack = middleware.stack(self.metrics, self.middlewares)
        middleware.check(stack)
        return CarillonBroker(platform, self._declared, stack, results_of(platform), run_worker)

    def _worker(self, platform: Platform, resources: Mapping[type, object], broker: CarillonBroker) -> Worker:
        receiver = Receiver(
            platform,
            new_id(),
            self.name,
            {task.task_name: task for task in self._declared},
            resources,
            middlewares=broker.middlewares,
            metrics=self.metrics,
            results=broker.results,
            concurrency=self.concurrency,
        )
        sweeper = Sweeper(platform, self.name, receiver, self.metrics)
        gatekeeper = Gatekeeper(platform, self.name, self.metrics)
        return Worker(
            platform, self.name, receiver, sweeper, gatekeeper, hears=self._hears, concurrency=self.concurrency
        )

    @property
    def _declared(self) -> list[Task[..., Any]]:
        return [] if self.tasks is None else list(self.tasks.declared.values())

    @property
    def _hears(self) -> list[type[Event]]:
        heard = [task.hears for task in self._declared if task.hears is not None]
        awaited = [event for task in self._declared if isinstance(task, WorkflowTask) for event in task.awaits]
        return list(dict.fromkeys([*heard, *awaited]))

    @property
    def _says(self) -> list[type[Event]]:
        # The platform says it in the name of whoever uses breakers.
        own = [BreakerChanged] if any(Policies in task.needs.values() for task in self._declared) else []
        return list(dict.fromkeys([*(event for task in self._declared for event in task.says), *self.says, *own]))


def _collect_garbage_rarely() -> None:
    """Look for cycles every 20,000 objects, not every 700, and not among what the imports left, which stays for ever.

    An attempt makes some hundred objects that all die by their reference counts; looking for cycles among them cost a
    tenth of a busy worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def _contract_row(contract: type[Event]) -> dict[str, Any]:
    return {"type": contract.type, "doc": contract.__doc__ or "", "schema": contract.model_json_schema()}
