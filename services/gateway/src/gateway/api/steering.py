"""Steering runs and queues: cancel, pause, resume, run again, settle, hold."""

from __future__ import annotations

from typing import Any

from litestar import Response, get, post

from carillon.errors import InvalidArgumentsError, ReplayConflictError
from carillon.ledger.records import State
from carillon.platform import Platform
from carillon.shapes import faults_of
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
from gateway.api.views import HoldView, Row
from gateway.errors import CONFLICT, NOT_FOUND, ProblemError, invalid

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
    await known_run(platform, run)
    done = await platform.ledger.steering.cancel(run, operator_of(request), reason)
    state = (await known_run(platform, run))["state"]
    if not any(done) and State(state).is_terminal and state != State.CANCELLED:
        raise _conflict(f"this run has ended {state}, so there is nothing to cancel")
    return CancelledRun(run_id=run, state=state, cancelled=done.ended, asked=done.asked)


@post("/api/v1/runs/{id:str}/pause", status_code=200, tags=["Steering"])
async def pause_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> SteeredRun:  # noqa: A002 - as above
    """Let a run that waits not start until it is resumed; pausing twice is pausing once."""
    reason, run = await bodies.reason(request), run_id(id)
    await known_run(platform, run)
    state = await platform.ledger.steering.pause_run(run, operator_of(request), reason) or "forgotten"
    if state == State.RUNNING:
        raise _conflict("this run executes already; cancel it, or pause its task so that no other starts")
    if state != State.PAUSED:
        raise _conflict(f"this run has ended {state}; only one that waits can be paused")
    return SteeredRun(run_id=run, state=state)


@post("/api/v1/runs/{id:str}/resume", status_code=200, tags=["Steering"])
async def resume_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> SteeredRun:  # noqa: A002 - as above
    """Let a paused run go on; one that was not paused stays as it is."""
    reason, run = await bodies.reason(request), run_id(id)
    await known_run(platform, run)
    state = await platform.ledger.steering.resume_run(run, operator_of(request), reason) or "forgotten"
    if state == "forgotten" or State(state).is_terminal:
        raise _conflict(f"this run has ended {state}; what failed or was cancelled can be replayed")
    return SteeredRun(run_id=run, state=state)


@post("/api/v1/runs/{id:str}/replay", status_code=202, tags=["Steering"])
async def replay_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> Response[ReplayedRun]:  # noqa: A002 - as above
    """Run what failed, was cancelled or is partial again, as a run of its own, perhaps with other arguments.

    Asking twice makes one: while a replay lives, or when it completed, it is the answer.
    """
    wishes, run = await bodies.wishes(request, REPLAY), run_id(id)
    original = await known_run(platform, run)
    args = wishes.get("args")
    if args is not None:
        await _refuse_misfits(platform, original["task"], args)
    try:
        made = await platform.ledger.replays.replay(run, operator_of(request), wishes.get("reason"), args=args)
    except (InvalidArgumentsError, ReplayConflictError) as error:
        raise _conflict(str(error)) from None
    url = f"/api/v1/tasks/{made.id}/status"
    answer = ReplayedRun(run_id=made.id, replay_of=run, task=original["task"], created=made.created, status_url=url)
    return Response(answer, headers={"Location": url})


@post("/api/v1/runs/{id:str}/settle", status_code=200, tags=["Steering"])
async def settle_run(request: Asked, id: str, platform: Platform, bodies: Bodies) -> SettledRun:  # noqa: A002 - as above
    """Say of a failed run that nothing more has to be done about it; it leaves the dead letters."""
    reason, run = await bodies.reason(request), run_id(id)
    state = (await known_run(platform, run))["state"]
    if state != State.FAILED:
        raise _conflict(f"this run is {state}; only one that failed can be settled")
    await platform.ledger.replays.settle([run], operator_of(request), reason)
    return SettledRun(run_id=run, state=state, settled=True)


@get("/api/v1/holds", tags=["Steering"])
async def list_holds(platform: Platform) -> HoldList:
    """The domains and tasks of which nothing starts, who said so, and why."""
    return HoldList(holds=[HoldView.of(hold._asdict()) for hold in await platform.ledger.steering.holds()])


@post("/api/v1/domains/{domain:str}/pause", status_code=200, tags=["Steering"])
async def pause_domain(request: Asked, domain: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let nothing of a domain start until it is resumed; what executes goes on."""
    return await _pause(request, _domain(domain), platform, bodies)


@post("/api/v1/domains/{domain:str}/resume", status_code=200, tags=["Steering"])
async def resume_domain(request: Asked, domain: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let the runs of a paused domain start again. Tasks that were paused by themselves stay so."""
    return await _resume(request, _domain(domain), platform, bodies)


@post("/api/v1/tasks/{task:str}/pause", status_code=200, tags=["Steering"])
async def pause_task(request: Asked, task: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let no run of one task start until it is resumed; what executes goes on."""
    return await _pause(request, _task(task), platform, bodies)


@post("/api/v1/tasks/{task:str}/resume", status_code=200, tags=["Steering"])
async def resume_task(request: Asked, task: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    """Let the runs of a paused task start again. While its domain is paused they still wait."""
    return await _resume(request, _task(task), platform, bodies)


async def _pause(request: Asked, name: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    reason = await bodies.reason(request)
    try:
        changed = await platform.ledger.steering.pause(name, operator_of(request), reason)
    except InvalidArgumentsError:
        raise _nobody() from None
    return SteeredQueue(name=name, paused=True, changed=changed)


async def _resume(request: Asked, name: str, platform: Platform, bodies: Bodies) -> SteeredQueue:
    reason = await bodies.reason(request)
    try:
        changed = await platform.ledger.steering.resume(name, operator_of(request), reason)
    except InvalidArgumentsError:
        raise _nobody() from None
    return SteeredQueue(name=name, paused=False, changed=changed)


async def _refuse_misfits(platform: Platform, name: str, args: object) -> None:
    task: Row | None = await platform.catalogue.task(name)
    if task is None:
        raise _conflict(f"no service offers {name} any more, so other arguments cannot be checked; replay it without")
    if faults := faults_of(args, task["schema"], "/args"):
        raise invalid(*faults)


def _domain(name: str) -> str:
    if "." in name or "\0" in name:
        raise _nobody()
    return name


def _task(name: str) -> str:
    if "." not in name or "\0" in name:
        raise _nobody()
    return name


def _nobody() -> ProblemError:
    return ProblemError(NOT_FOUND, "no domain and no task has this name; GET /api/v1/tasks lists both")


def _conflict(sentence: str) -> ProblemError:
    return ProblemError(CONFLICT, sentence)
