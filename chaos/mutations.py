"""All that the fault matrix replaces in Carillon, in its own processes only: points to die at, and negative controls.

A negative control takes one defence away, and the checker has to notice. Names are taken with `_taken`, which fails
loudly when Carillon does not have them any more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from taskiq import TaskiqMiddleware

from carillon.ledger.ledger import End, Ledger
from carillon.ledger.records import Delivery, Finish, NewRun, Submitted
from carillon.platform import Platform
from carillon.transports.rabbitmq import RabbitTransport
from carillon.worker import sweeper, worker
from carillon.worker.attempt import Attempt
from carillon.worker.ending import Endings
from carillon.worker.execution import Execution
from carillon.worker.receiver import Receiver
from carillon.worker.sweeper import Sweeper
from chaos.errors import MissingNameError
from chaos.journal import Journal
from chaos.settings import ChaosSettings

Name = TypeVar("Name")

#: What a process that is killed ends with.
KILLED = 137
#: Where a worker can be told to die, in the order of a run's life. A burial is that of a message nobody can read.
POINTS = (
    "before_start", "after_start", "in_effect", "after_effect", "before_end", "after_end", "after_retry",
    "after_burial",
)  # fmt: skip
#: Where a gateway can be told to die: after the commit and before the answer, and right after the answer.
GATEWAY_POINTS = ("before_answer", "after_answer")
#: An answer is on its way after this long, in seconds.
ANSWERED_SECONDS = 0.02

_crash: Callable[[str, str], None] | None = None


def _taken(owner: Any, name: str) -> Any:
    """What is to be replaced; raises `MissingNameError` when it is gone."""
    found = getattr(owner, name, None)
    if found is None:
        message = f"{owner.__name__}.{name} is gone, which chaos/mutations.py replaces; name its successor there"
        raise MissingNameError(message)
    return found


def _put(owner: Any, name: str, replacement: Any) -> None:
    _taken(owner, name)
    setattr(owner, name, replacement)


def apply(settings: ChaosSettings) -> None:
    """Change this process as its settings say; before anything of Carillon is made."""
    if settings.silence:
        hurry(settings.silence)
    if settings.crashes:
        arm(settings)
    if settings.mutation:
        CONTROLS[settings.mutation]()


def hurry(silence: float) -> None:
    """Take a worker for lost after `silence` seconds instead of 15; everything that goes with it in proportion."""
    _put(sweeper, "SILENCE", timedelta(seconds=silence))
    _put(sweeper, "ROUND_SECONDS", silence / 5)
    _put(worker, "HEARTBEAT_SECONDS", silence / 7.5)


def crash_point(point: str, ticket: str) -> None:
    """Die here, if this ticket asks for it and did not before."""
    if _crash is not None:
        _crash(point, ticket)


def arm(settings: ChaosSettings) -> None:
    """Let tickets of the form `crash.POINT.WORD` kill this process, each once."""
    global _crash  # noqa: PLW0603 - one process, one answer
    tally = Journal(settings.tally)
    folder = settings.folder / "crashed"
    folder.mkdir(exist_ok=True)

    def crash(point: str, ticket: str) -> None:
        if not ticket.startswith(f"crash.{point}."):
            return
        try:
            os.close(os.open(folder / ticket, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        tally.write("killed", point=point)
        os._exit(KILLED)

    _crash = crash
    _arm_attempts()
    _arm_burial()
    _arm_submit()


def _arm_attempts() -> None:
    start, attempt, end = _taken(Receiver, "_start"), _taken(Receiver, "_attempt"), _taken(Endings, "_end")

    async def doomed_start(self: Receiver, delivery: Delivery) -> bool:
        crash_point("before_start", _ticket(delivery))
        return bool(await start(self, delivery))

    async def doomed_attempt(self: Receiver, doomed: Attempt) -> None:
        crash_point("after_start", _ticket(doomed.execution.delivery))
        await attempt(self, doomed)

    async def doomed_end(self: Endings, execution: Execution) -> bool:
        ticket = _ticket(execution.delivery)
        crash_point("before_end", ticket)
        applied = bool(await end(self, execution))
        crash_point("after_end" if execution.verdict.state.is_terminal else "after_retry", ticket)
        return applied

    _put(Receiver, "_start", doomed_start)
    _put(Receiver, "_attempt", doomed_attempt)
    _put(Endings, "_end", doomed_end)


def _arm_burial() -> None:
    bury = _taken(Platform, "bury")

    async def doomed_bury(self: Platform, queue: str, reason: str, body: bytes, headers: Any) -> None:
        await bury(self, queue, reason, body, headers)
        if body.startswith(b"crash.after_burial"):
            crash_point("after_burial", f"crash.after_burial.{sha256(body).hexdigest()[:16]}")

    _put(Platform, "bury", doomed_bury)


def _arm_submit() -> None:
    submit = _taken(Platform, "submit")

    async def doomed_submit(self: Platform, run: NewRun) -> Submitted:
        submitted = await submit(self, run)
        key = run.idempotency_key or ""
        crash_point("before_answer", key)
        asyncio.get_running_loop().call_later(ANSWERED_SECONDS, crash_point, "after_answer", key)
        return submitted  # type: ignore[no-any-return]

    _put(Platform, "submit", doomed_submit)


def _ticket(delivery: Delivery) -> str:
    return str(delivery.args.get("ticket", ""))


class RaisingMiddleware(TaskiqMiddleware):
    """Raises in every hook that a worker calls, and counts it first."""

    def __init__(self, settings: ChaosSettings) -> None:
        super().__init__()
        self._tally = Journal(settings.tally)

    def _fail(self, hook: str) -> None:
        self._tally.write("hook", hook=hook)
        message = f"the middleware raises in {hook}"
        raise RuntimeError(message)

    def pre_execute(self, message: Any) -> Any:  # noqa: ARG002
        """Raise."""
        self._fail("pre_execute")

    def post_execute(self, message: Any, result: Any) -> None:  # noqa: ARG002
        """Raise."""
        self._fail("post_execute")

    def on_error(self, message: Any, result: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Raise."""
        self._fail("on_error")

    async def post_save(self, message: Any, result: Any) -> None:  # noqa: ARG002
        """Raise, later."""
        await asyncio.sleep(0)
        self._fail("post_save")


async def _nothing() -> None:
    """Acknowledge what is acknowledged."""


def acknowledge_first() -> None:
    """Control: acknowledge on receive, and start without the ledger."""
    execute = _taken(Receiver, "execute")

    async def early(self: Receiver, delivery: Delivery, acknowledge: Any) -> None:
        await acknowledge()
        await execute(self, delivery, _nothing)

    async def begin(_: Receiver, __: Delivery) -> bool:
        return True

    _put(Receiver, "execute", early)
    _put(Receiver, "_start", begin)
    _put(Ledger, "_finish", _finish_without_fence(_taken(Ledger, "_finish")))


def publish_carelessly() -> None:
    """Control: publish without waiting for a confirm, and have nobody sweep."""
    dispatch = _taken(RabbitTransport, "dispatch")
    kept: set[asyncio.Task[Any]] = set()

    async def careless(self: RabbitTransport, domain: str, deliveries: Sequence[Delivery]) -> list[UUID]:
        _keep(kept, asyncio.create_task(dispatch(self, domain, deliveries)))
        return []

    async def rest(_: Sweeper) -> None:
        await asyncio.Event().wait()

    _put(RabbitTransport, "dispatch", careless)
    _put(Sweeper, "run", rest)


def no_fence() -> None:
    """Control: start and end whatever comes, whoever has the run and however it ended."""

    async def start(self: Ledger, batch: Sequence[tuple[UUID, int, UUID]]) -> list[bool]:
        await self.pool.execute(
            "update carillon.runs set state = 'running', started_at = now(), worker_id = $2 where id = any($1::uuid[])",
            [run for run, _, _ in batch],
            batch[0][2],
        )
        return [True] * len(batch)

    _put(Ledger, "_start", start)
    _put(Ledger, "_finish", _finish_without_fence(_taken(Ledger, "_finish")))


def answer_first() -> None:
    """Control: say that a run is accepted before its row is committed."""
    submit = _taken(Platform, "submit")
    kept: set[asyncio.Task[Any]] = set()

    async def hasty(self: Platform, run: NewRun) -> Submitted:
        _keep(kept, asyncio.create_task(submit(self, run)))
        return Submitted(run.id, created=True)

    _put(Platform, "submit", hasty)


def _finish_without_fence(finish: Any) -> Any:
    """Ends that ask for nothing but the id. Those that are no ends, or say events, stay as they are."""

    async def careless(self: Ledger, batch: Sequence[tuple[UUID, Finish]]) -> list[End]:
        plain = [f for _, f in batch if f.state.is_terminal and not f.events]
        await self.pool.execute(
            "update carillon.runs r set state = d.state, finished_at = now(),"
            " ended_on = (now() at time zone 'UTC')::date"
            " from unnest($1::uuid[], $2::text[]) as d(id, state) where r.id = d.id",
            [f.id for f in plain],
            [f.state.value for f in plain],
        )
        others = [one for one in batch if one[1] not in plain]
        ends = dict(zip([f.id for _, f in others], await finish(self, others), strict=True)) if others else {}
        return [ends.get(f.id, End(applied=True)) for _, f in batch]

    return careless


def _keep(kept: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    """Hold a task that nobody awaits, and take its error."""
    kept.add(task)
    task.add_done_callback(kept.discard)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


#: By the name that `CHAOS_MUTATION` has.
CONTROLS: dict[str, Callable[[], None]] = {
    "acknowledge-first": acknowledge_first,
    "publish-carelessly": publish_carelessly,
    "no-fence": no_fence,
    "answer-first": answer_first,
}
