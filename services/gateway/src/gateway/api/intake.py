"""Taking runs: each request is checked against the catalogue, and what it asks for is submitted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from carillon.errors import IdempotencyConflictError, UniqueConflictError, UnknownNeedError
from carillon.ledger.records import NewRun, Submitted
from carillon.platform import Platform
from carillon.shapes import MOST_FAULTS, faults_by, faults_of, shown
from carillon.telemetry.metrics import Metrics
from carillon.telemetry.traces import current_traceparent
from gateway.api.requests import Asked, Bodies, actor_of
from gateway.api.views import Accepted
from gateway.errors import CONFLICT, KEY_REUSED, NOT_FOUND, Fault, ProblemError, invalid
from gateway.submissions import batch_in, checked, idempotency_key, new_run

Row = Mapping[str, Any]
_MOST_NAMES = 20
#: Larger arguments belong in storage, with their key as the argument; a single submit cannot have larger ones either.
MOST_ARGS_BYTES = 256 * 1024
#: What of a batch is checked before other requests have their turn, and what an entry counts beside its arguments.
_AT_ONCE_BYTES = 16 * 1024
_ENTRY_BYTES = 256


class Intake:
    """What submitting needs, as one thing: a handler that asks for several is given each by a task of its own."""

    def __init__(self, platform: Platform, metrics: Metrics, bodies: Bodies, batches: Bodies) -> None:
        self._platform = platform
        self._metrics = metrics
        self._bodies = bodies
        self._batches = batches

    async def body(self, request: Asked, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a single submit, if it fits; raises `ProblemError`."""
        return checked(await self._bodies.json(request), schema)

    async def named(self, name: str) -> Row:
        """The task of that name; raises `ProblemError`."""
        task = await self._platform.catalogue.task(name)
        if task is None:
            raise invalid(Fault("/task", await self._no_task()))
        return _callable(task)

    async def of_domain(self, domain: str, named: str | None) -> Row:
        """The named task of a domain, or its default one; raises `ProblemError`."""
        if named is not None:
            task = await self._platform.catalogue.task(named if "." in named else f"{domain}.{named}")
            if task is not None and task["domain"] == domain:
                return _callable(task)
        tasks = [] if "\0" in domain else await self._platform.catalogue.tasks_of(domain)
        if not tasks:
            domains = ", ".join(row["name"] for row in await self._platform.catalogue.domains())
            message = f"no domain of this name has tasks; there are {domains or 'none yet: start a service'}"
            raise ProblemError(NOT_FOUND, message)
        if named is not None:
            raise invalid(Fault("/task", f"is not a task of {shown(domain)}; there are {_names(tasks)}"))
        default = [task for task in tasks if task["is_default"]]
        usable = default or [task for task in tasks if task["hears"] is None]
        if len(usable) != 1:
            detail = f"must be named, as {shown(domain)} has no default; there are {_names(tasks)}"
            raise invalid(Fault("/task", detail))
        return usable[0]

    async def submit(self, request: Asked, task: Row, arguments: object, pointer: str, options: Row) -> Accepted:
        """Submit one run; raises `ProblemError` when the arguments do not fit the task."""
        faults = faults_of(arguments, task["schema"], pointer)
        if faults or not isinstance(arguments, dict):
            raise invalid(*faults)
        key, own = _key_of(request), options.get("idempotency_key")
        if key is not None and own is not None and key != own:
            raise invalid(Fault("/idempotency_key", "is another one than the header Idempotency-Key"))
        run = new_run(
            task, arguments, options, actor=actor_of(request), key=key or own, traceparent=current_traceparent()
        )
        try:
            return self._accepted(run, await self._platform.submit(run))
        except UniqueConflictError as error:
            raise _taken(error) from None
        except UnknownNeedError as error:
            raise invalid(Fault("/after/runs", str(error))) from None

    async def submit_batch(self, request: Asked) -> list[Accepted]:
        """Submit many runs, all or none; raises `ProblemError` with what is wrong, and in which of them."""
        entries = batch_in(await self._batches.json(request))
        known = {name: await self._platform.catalogue.task(name) for name in {entry["task"] for entry in entries}}
        unknown = await self._no_task() if None in known.values() else ""
        fits = {name: faults_by(task["schema"]) for name, task in known.items() if task is not None}
        key, faults, runs, bytes_checked = _key_of(request), list[Fault](), list[NewRun](), 0
        for index, entry in enumerate(entries):
            try:
                run = _run_of(request, known[entry["task"]], entry, key, index, unknown)
                if wrong := fits[run.task](entry.get("args", {}), "/args"):
                    raise invalid(*wrong)
                runs.append(run)
                bytes_checked += len(runs[-1].args) + _ENTRY_BYTES
            except ProblemError as problem:
                faults += [Fault(f"/tasks/{index}{fault.pointer}", fault.detail) for fault in problem.faults]
            if len(faults) >= MOST_FAULTS:
                break
            if bytes_checked > _AT_ONCE_BYTES:
                bytes_checked = 0
                await asyncio.sleep(0)
        if faults:
            raise invalid(*faults[:MOST_FAULTS])
        try:
            submitted = await self._platform.submit_many(runs)
        except IdempotencyConflictError as error:
            raise _reused(error) from None
        except UniqueConflictError as error:
            raise _taken(error, _at(error.positions, "has the unique key of a run that is there")) from None
        except UnknownNeedError as error:
            raise invalid(*_at(error.positions, str(error), "/after/runs")) from None
        return list(map(self._accepted, runs, submitted))

    def _accepted(self, run: NewRun, submitted: Submitted) -> Accepted:
        if submitted.created:
            self._metrics.submitted.labels(run.task).inc()
        url = f"/api/v1/tasks/{submitted.id}/status"
        return Accepted(task_id=submitted.id, id=submitted.id, task=run.task, created=submitted.created, status_url=url)

    async def _no_task(self) -> str:
        return f"is not a task; there are {_names(await self._platform.catalogue.tasks())}"


def _run_of(request: Asked, task: Row | None, entry: Row, key: str | None, index: int, unknown: str) -> NewRun:
    """The run that an entry of a batch asks for; raises `ProblemError` with pointers below the entry.

    Whether its arguments fit the task is left to the caller.
    """
    if task is None:
        raise invalid(Fault("/task", unknown))
    own = entry.get("idempotency_key")
    arguments = entry.get("args", {})
    run = new_run(
        _callable(task),
        arguments,
        entry,
        actor=actor_of(request),
        key=key if own is None else own,
        traceparent=current_traceparent(),
        place=None if own is not None else index,
    )
    if len(run.args.encode()) > MOST_ARGS_BYTES:
        detail = f"may have {MOST_ARGS_BYTES} bytes; keep larger data in storage and send its key"
        raise invalid(Fault("/args", detail))
    return run


def _taken(error: UniqueConflictError, faults: Sequence[Fault] = ()) -> ProblemError:
    headers = {"Location": f"/api/v1/tasks/{error.run}/status"}
    return ProblemError(CONFLICT, f"{error}; wait for its end, or cancel it", headers=headers, faults=faults)


def _reused(error: IdempotencyConflictError) -> ProblemError:
    return ProblemError(
        KEY_REUSED, f"{error}", faults=_at(error.positions, "has a key that was used for something else")
    )


def _at(positions: Sequence[int], detail: str, pointer: str = "") -> list[Fault]:
    """The same fault of several runs of a batch."""
    return [Fault(f"/tasks/{at}{pointer}", detail) for at in positions[:MOST_FAULTS]]


def _key_of(request: Asked) -> str | None:
    return idempotency_key(request.headers.getall("idempotency-key", []))


def _callable(task: Row) -> Row:
    if task["hears"] is not None:
        detail = f"answers events; post an event of type {task['hears']} to /api/v1/events instead"
        raise invalid(Fault("/task", detail))
    return task


def _names(tasks: Sequence[Row]) -> str:
    names = [task["name"] for task in tasks if task["hears"] is None]
    more = "" if len(names) <= _MOST_NAMES else f" and {len(names) - _MOST_NAMES} more"
    return f"{', '.join(names[:_MOST_NAMES]) or 'none'}{more}"
