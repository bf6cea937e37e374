"""Steering runs and queues: cancel, pause, resume, run again, settle, hold."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from carillon.errors import InvalidArgumentsError, UnfitArgumentsError
from carillon.ledger.records import State
from carillon.operator import Operator
from carillon.platform import Platform
from gateway.api.requests import REASON, WHY, Asked, Bodies, operator_of, run_id
from gateway.api.runs import known_run
from gateway.api.steer_views import (
    CancelledRun,
    HoldList,
    ReplayedRun,
    SettledRun,
    SteeredQueue,
    SteeredRun,
)
from gateway.api.views import HoldView
from gateway.errors import NOT_FOUND, Fault, ProblemError, invalid

#: The body of `POST /api/v1/runs/{id}/replay`.
REPLAY: dict[str, Any] = {
    **REASON,
    "properties": {
        "args": {"description": "Other arguments than the first time, all of them by name.", "type": "object"},
        "reason": WHY,
    },
}


@post("/api/v1/runs/{id:str}/cancel", status_code=200, tags=["Steering"])
async def cancel_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> CancelledRun:  # noqa: A002 - its name in the address
    """Cancel a run, and all that it submitted: what waits ends at once, what executes is asked to."""
    reason, run = await bodies.reason(request), run_id(id)
    state, ended, asked = await Operator(platform, operator_of(request), reason).cancel(run)
    return CancelledRun(run_id=run, state=state, cancelled=ended, asked=asked)


@post("/api/v1/runs/{id:str}/pause", status_code=200, tags=["Steering"])
async def pause_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> SteeredRun:  # noqa: A002 - as above
    """Let a run that waits not start until it is resumed; pausing twice is pausing once."""
    reason, run = await bodies.reason(request), run_id(id)
    paused = await Operator(platform, operator_of(request), reason).pause(run=run)
    return SteeredRun(run_id=run, state=str(paused.state))


@post("/api/v1/runs/{id:str}/resume", status_code=200, tags=["Steering"])
async def resume_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> SteeredRun:  # noqa: A002 - as above
    """Let a paused run go on; one that was not paused stays as it is."""
    reason, run = await bodies.reason(request), run_id(id)
    resumed = await Operator(platform, operator_of(request), reason).resume(run=run)
    return SteeredRun(run_id=run, state=str(resumed.state))


@post("/api/v1/runs/{id:str}/replay", status_code=202, tags=["Steering"])
async def replay_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> Response[ReplayedRun]:  # noqa: A002 - as above
    """Run what failed, was cancelled or is partial again, as a run of its own, perhaps with other arguments.

    Asking twice makes one: while a replay lives, or when it completed, it is the answer.
    """
    wishes, run = await bodies.wishes(request, REPLAY), run_id(id)
    original = await known_run(platform, run)
    try:
        made = await Operator(platform, operator_of(request), wishes.get("reason")).replay(run, wishes.get("args"))
    except UnfitArgumentsError as error:
        raise invalid(*error.faults) from None
    except InvalidArgumentsError as error:
        raise invalid(Fault("/args", str(error))) from None
    url = f"/api/v1/tasks/{made.id}/status"
    answer = ReplayedRun(run_id=made.id, replay_of=run, task=original["task"], created=made.created, status_url=url)
    return Response(answer, headers={"Location": url})


@post("/api/v1/runs/{id:str}/settle", status_code=200, tags=["Steering"])
async def settle_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> SettledRun:  # noqa: A002 - as above
    """Say of a failed run that nothing more has to be done about it; it leaves the dead letters."""
    reason, run = await bodies.reason(request), run_id(id)
    await Operator(platform, operator_of(request), reason).settle(run)
    return SettledRun(run_id=run, state=State.FAILED, settled=True)


@get("/api/v1/holds", tags=["Steering"])
async def list_holds(platform: Platform) -> HoldList:
    """The domains and tasks of which nothing starts, who said so, and why."""
    return HoldList(holds=[HoldView.of(hold._asdict()) for hold in await platform.ledger.steering.holds()])


@post("/api/v1/domains/{domain:str}/pause", status_code=200, tags=["Steering"])
async def pause_domain(request: Asked, domain: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let nothing of a domain start until it is resumed; what executes goes on."""
    return await _hold(request, platform, bodies, paused=True, domain=domain)


@post("/api/v1/domains/{domain:str}/resume", status_code=200, tags=["Steering"])
async def resume_domain(request: Asked, domain: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let the runs of a paused domain start again. Tasks that were paused by themselves stay so."""
    return await _hold(request, platform, bodies, paused=False, domain=domain)


@post("/api/v1/tasks/{task:str}/pause", status_code=200, tags=["Steering"])
async def pause_task(request: Asked, task: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let no run of one task start until it is resumed; what executes goes on."""
    return await _hold(request, platform, bodies, paused=True, task=task)


@post("/api/v1/tasks/{task:str}/resume", status_code=200, tags=["Steering"])
async def resume_task(request: Asked, task: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let the runs of a paused task start again. While its domain is paused they still wait."""
    return await _hold(request, platform, bodies, paused=False, task=task)


async def _hold(request: Asked, platform: Platform, bodies: Bodies, *, paused: bool, **named: str) -> SteeredQueue:
    operator = Operator(platform, operator_of(request), await bodies.reason(request))
    try:
        done = await (operator.pause(**named) if paused else operator.resume(**named))
    except InvalidArgumentsError:
        message = "no domain and no task has this name; GET /api/v1/tasks lists both"
        raise ProblemError(NOT_FOUND, message) from None
    (name,) = named.values()
    return SteeredQueue(name=name, paused=paused, changed=done.changed)
