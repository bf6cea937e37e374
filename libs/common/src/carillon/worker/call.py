"""The code of one attempt in a child process: ordered, followed, stopped, and told what became of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from pydantic_core import to_jsonable_python

from carillon import clock
from carillon.errors import ProcessLost, Stopped
from carillon.partial import Partial
from carillon.run import Progress, Run
from carillon.task import Task
from carillon.telemetry.excerpt import Excerpt
from carillon.telemetry.traces import current_traceparent
from carillon.worker.children import GONE_SECONDS, Child, Children
from carillon.worker.crossing import said, unpacked
from carillon.worker.execution import Execution

log = structlog.get_logger(__name__)

#: A child has to begin a run within this time; a new one imports the task's module in it.
BEGIN_SECONDS = 60.0
#: So long the code may clean up when its worker drains; less than the worker waits for it.
LEAVE_SECONDS = 1.5
#: A child that has been this large makes way for a new one.
MOST_BYTES = 1 << 30


class Call:
    """The code of one attempt, in a child."""

    def __init__(
        self, children: Children, execution: Execution, arguments: Mapping[str, Any], begun: Callable[[], None]
    ) -> None:
        self._children = children
        self._run: Run = execution.run
        self._begun = begun
        self._child: Child | None = None
        self._is_killed = False
        assert execution.task is not None  # noqa: S101 - its code is about to run
        self._order = _order_of(execution, execution.task, arguments)

    async def result(self) -> Any:
        """Execute it; returns what it returns, as JSON says it, and raises what it raises."""
        async with self._children.slots:
            answer = await self._answer(fresh=False)
            if answer is None:
                # It died between two runs, before it had begun with this one.
                answer = await self._answer(fresh=True)
        if answer is None:
            raise ProcessLost("its process ended before the code began; the worker's own log says why")
        if answer.get("stopped"):
            raise Stopped(self._run.stopped)
        if "error" in answer:
            raise unpacked(answer["error"])
        for words in answer["said"]:
            self._run.say(said(words))
        result = answer["result"]
        return result if answer["partial"] is None else Partial(result, reason=answer["partial"])

    def stop(self, reason: str) -> None:
        """Raise `Stopped` at whatever line the code is; it may clean up."""
        if self._child is not None:
            self._child.tell({"stop": {"run": str(self._run.id), "reason": reason}})

    def kill(self) -> None:
        """End the process, and what it started."""
        self._is_killed = True
        if self._child is not None:
            log.warning("process killed", pid=self._child.pid, reason=self._run.stopped)
            self._child.kill()

    async def _answer(self, *, fresh: bool) -> dict[str, Any] | None:
        """What the code ended with; None when a child died that had not begun with it."""
        self._run.check()
        child = self._child = await self._children.take(self._order, fresh=fresh)
        if self._is_killed:
            self.kill()
        is_spent = True
        try:
            answer = await self._talk(child)
            if answer is not None and self._run.stopped is None:
                # What was stopped at any line may have left anything half done.
                is_spent = answer["spent"] or answer["peak_bytes"] > MOST_BYTES
        except asyncio.CancelledError:
            await self._leave(child)
            raise
        else:
            return answer
        finally:
            self._child = None
            self._children.give_back(child, is_spent=is_spent)

    async def _talk(self, child: Child) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                begun = await child.hear()
        except TimeoutError:
            child.kill()
            raise ProcessLost(f"its process did not begin within {BEGIN_SECONDS:g} s") from None
        if begun is None:
            self._check_killed(child)
            return None
        self._begun()
        if self._run.stopped is not None:
            # Perhaps while there was no process yet that could be told.
            self.stop(self._run.stopped)
        return await self._follow(child)

    async def _follow(self, child: Child) -> dict[str, Any]:
        while (message := await child.hear()) is not None:
            if "end" in message:
                return dict(message["end"])
            if "report" in message:
                self._hear(message["report"])
        self._check_killed(child)
        raise ProcessLost(await _fate(child))

    def _check_killed(self, child: Child) -> None:
        if child.was_killed:
            raise Stopped(self._run.stopped)

    def _hear(self, report: Mapping[str, Any]) -> None:
        run = self._run
        run.heard = clock.monotonic()
        if lines := report["log"]:
            if not isinstance(run.excerpt, Excerpt):
                run.excerpt = Excerpt()
            for line in lines:
                run.excerpt.append(line)
        if (reported := report.get("progress")) is not None:
            run.reported = Progress(**{**reported, "at": datetime.fromisoformat(reported["at"])})
        if "kept" in report:
            run.kept, run.kept_at = report["kept"], clock.now()
        if (beat := report.get("beat")) is not None:
            run.beat_at = datetime.fromisoformat(beat)
        if run.listen is not None:
            run.listen()

    async def _leave(self, child: Child) -> None:
        """The worker drains, and its patience is at an end."""
        self.stop("the worker stops")
        with suppress(TimeoutError, ProcessLost, Stopped):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._follow(child)
        child.kill()


def _order_of(execution: Execution, task: Task[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    run = execution.run
    module, function = task.home
    given = {
        "id": run.id,
        "task": run.task,
        "domain": run.domain,
        "attempt": run.attempt,
        "labels": run.labels,
        "cause": run.cause,
        "deadline_at": run.deadline_at,
    }
    order = {
        "run": given,
        "module": module,
        "function": function,
        "arguments": arguments,
        "traceparent": current_traceparent() or execution.delivery.traceparent,
    }
    plain = to_jsonable_python(order)
    assert isinstance(plain, dict)  # noqa: S101 - as it was
    return plain


async def _fate(child: Child) -> str:
    """What became of a child that ended in the middle of a run."""
    await asyncio.wait({child.end}, timeout=GONE_SECONDS)
    if not child.end.done():
        child.kill()
        return "its process closed its connection to the worker, and was killed"
    code = child.end.result()
    if code >= 0:
        return f"its process ended with exit code {code} before the function returned"
    name = signal.Signals(-code).name
    hint = "; nobody here sent it: did the machine run out of memory?" if -code == signal.SIGKILL else ""
    return f"its process was ended by the signal {name}{hint}"
