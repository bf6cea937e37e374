"""Reading workflows: their steps, what each of them came after and waits for, and what waits for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from carillon.ledger.pages import MOST_ROWS, Row
from carillon.stored_results import stored_in

#: A result of more bytes, as JSON, is left out of a list of steps.
MOST_RESULT_BYTES = 2048
#: Characters of an error.
MOST_ERROR = 500
DECIDED = ("approval", "repair")

#: How a step stands: how it ended, or how its run does. What did not end before its workflow did never will.
_STATE = """coalesce(s.outcome, r.state, case
    when s.kind = 'task' then 'forgotten' when w.finished_at is null then 'waiting' else 'cancelled' end)"""
#: A run is looked for where the step does not know how it ended.
_JOINED = """carillon.steps s join carillon.runs w on w.id = s.workflow_id
left join carillon.runs r on r.id = case when s.outcome is null then s.run_id end"""
_STEPS = text(f"""
select s.seq, s.kind, s.name, s.saw, s.at, s.run_id, s.event_id, s.due_at, s.match, s.attempt, {_STATE} as state,
    coalesce(s.started_at, r.started_at) as started_at, s.ended_at, r.attempt - r.uncounted as run_attempt,
    r.wake_at is not null as run_parks, r.run_at, s.error->>'type' as error_type,
    left(s.error->>'message', {MOST_ERROR}) as error_message, octet_length(s.result::text) as result_bytes,
    case when octet_length(s.result::text) <= {MOST_RESULT_BYTES} then s.result end as result
from {_JOINED} where s.workflow_id = :workflow and s.seq > :after order by s.seq limit :limit
""").columns(match=JSONB, result=JSONB)
_COUNTS = text(f"""
select s.kind, {_STATE} as state, count(*) as number from {_JOINED} where s.workflow_id = :workflow group by 1, 2
""")
#: Which ends had been told before a step, where none were told right before it.
_LAST_SEEN = text("""
select saw from carillon.steps where workflow_id = :workflow and seq <= :seq and exists (
    select from unnest(saw) as seen where seen > 0
) order by seq desc limit 1
""")
_IS_WORKFLOW = text("select name from carillon.tasks where name = :task and policy ? 'workflow'")
_NAMES = text("select name from carillon.tasks where policy ? 'workflow' order by name")
_DECISIONS = text("""
select s.workflow_id, s.seq, s.kind, s.name, s.at, s.due_at, r.task, r.domain, r.state, r.labels
from carillon.steps s join carillon.runs_live r on r.id = s.workflow_id
where s.outcome is null and s.kind in ('approval', 'repair')
  and (cast(:at as timestamptz) is null or (s.at, s.workflow_id, s.seq) > (:at, cast(:workflow as uuid), :seq))
order by s.at, s.workflow_id, s.seq limit :limit
""").columns(labels=JSONB)


class StepPlace(NamedTuple):
    """Where the next page of decisions begins: after this one."""

    at: datetime
    workflow: UUID
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStep:
    """A step as people see it."""

    seq: int
    #: task, sleep, event, approval or repair.
    kind: str
    name: str
    #: Of a task that of its run; else waiting, completed, expired or cancelled.
    state: str
    run_id: UUID | None
    asked_at: datetime
    #: Of a task: when its last attempt began.
    started_at: datetime | None
    ended_at: datetime | None
    #: How long its last attempt took, or it was waited for.
    seconds: float | None
    #: Of a task: how many attempts began.
    attempts: int | None
    #: Its `type` and `message`.
    error: Mapping[str, Any] | None
    #: None too where it is large: then `result_bytes` says how large, and it lies with the run, or the event.
    result: Any
    result_bytes: int | None
    #: The event that came.
    event_id: UUID | None
    due_at: datetime | None
    #: Of an event: what it has to have.
    match: Mapping[str, Any] | None
    #: What it waits for, in a sentence; None where it has ended.
    waits_for: str | None
    #: The steps whose ends the code had been told of when it asked for this one. Of steps that were asked for together
    #: the first one has them, and the others name that.
    after: Sequence[int]
    beside: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWorkflow:
    """A workflow as people see it, with some of its steps."""

    #: As `History.run` has it.
    run: Row
    steps: Sequence[SeenStep]
    #: How many steps of all are in which state.
    counts: Mapping[str, int]
    #: What it waits for now, in a sentence.
    waits_for: str | None
    #: Whether there are steps after these.
    more: bool

    @property
    def version(self) -> int | None:
        """The version of the code that it began with; None before it first waited."""
        return None if self.run["origin"] is None else int(self.run["origin"]["version"])

    @property
    def code_changes(self) -> Sequence[Mapping[str, Any]]:
        """`code` and `step`: in which other code it went on, and from which step on."""
        changed: Sequence[Mapping[str, Any]] = (self.run["origin"] or {}).get("changed", ())
        return changed


async def seen_workflow(
    engine: AsyncEngine, run: Row, *, after: int = 0, limit: int = MOST_ROWS
) -> SeenWorkflow | None:
    """The workflow that a run is, with its steps after a number; None for a run that is none."""
    async with engine.connect() as connection:
        if run["wake_at"] is None and not await _all(connection, _IS_WORKFLOW, task=run["task"]):
            return None
        wanted = min(limit, MOST_ROWS)
        rows = await _all(connection, _STEPS, workflow=run["id"], after=after, limit=wanted + 1)
        seen = await _all(connection, _LAST_SEEN, workflow=run["id"], seq=after) if after else []
        counted = await _all(connection, _COUNTS, workflow=run["id"])
    counts = Counter({(row["kind"], row["state"]): row["number"] for row in counted})
    steps = seen_steps(rows[:wanted], seen[0]["saw"] if seen else ())
    return assembled(run, steps, counts, more=len(rows) > wanted)


async def all_steps(engine: AsyncEngine, workflow: UUID, most: int) -> list[SeenStep]:
    """The first so many steps of a workflow."""
    async with engine.connect() as connection:
        return seen_steps(await _all(connection, _STEPS, workflow=workflow, after=0, limit=most))


async def open_decisions(engine: AsyncEngine, after: StepPlace | None, limit: int) -> list[Row]:
    """The approvals and repairs that workflows wait for, those first that were asked for first."""
    at, workflow, seq = after or (None, None, None)
    async with engine.connect() as connection:
        return await _all(connection, _DECISIONS, at=at, workflow=workflow, seq=seq, limit=min(limit, MOST_ROWS))


async def workflow_names(engine: AsyncEngine) -> list[str]:
    """The tasks that are workflows, by name."""
    async with engine.connect() as connection:
        return [row["name"] for row in await _all(connection, _NAMES)]


def assembled(
    run: Row, steps: Sequence[SeenStep], counts: Mapping[tuple[str, str], int], *, more: bool
) -> SeenWorkflow:
    """A workflow with some of its steps, and counts of all by kind and state."""
    by_state: Counter[str] = Counter()
    for (_, state), number in counts.items():
        by_state[state] += number
    return SeenWorkflow(run=run, steps=steps, counts=by_state, waits_for=_waits_for(run, counts), more=more)


def seen_steps(rows: Iterable[Row], seen_before: Sequence[int] = ()) -> list[SeenStep]:
    """Steps in order, given what had been seen before the first of them."""
    steps: list[SeenStep] = []
    seen, first = [seq for seq in seen_before if seq], None
    for row in rows:
        # 0 is a cancellation, which is the end of no step.
        if told := [seq for seq in row["saw"] if seq]:
            seen, first = told, None
        steps.append(_seen_step(row, seen if first is None else (), first))
        first = row["seq"] if first is None else first
    return steps


def _seen_step(row: Row, after: Sequence[int], beside: int | None) -> SeenStep:
    same = ("seq", "kind", "name", "state", "run_id", "started_at", "ended_at", "event_id", "due_at", "match")
    began = row["started_at"] if row["kind"] == "task" else row["at"]
    is_timed = row["ended_at"] is not None and began is not None
    has_failed = row["error_type"] is not None or row["error_message"] is not None
    large = _large_result(row)
    return SeenStep(
        **{name: row[name] for name in same},
        asked_at=row["at"],
        seconds=max(0.0, (row["ended_at"] - began).total_seconds()) if is_timed else None,
        attempts=_attempts(row),
        error={"type": row["error_type"], "message": row["error_message"]} if has_failed else None,
        result=None if large else row["result"],
        result_bytes=large,
        waits_for=None if _has_ended(row) else awaited(row),
        after=after,
        beside=beside,
    )


def _large_result(row: Row) -> int | None:
    """How many bytes a result has that is left out."""
    stored = None if row["run_id"] is None else stored_in(row["run_id"], row["result"])
    if stored is not None:
        return stored.bytes
    size: int | None = row["result_bytes"]
    return size if size is not None and size > MOST_RESULT_BYTES else None


def _attempts(row: Row) -> int | None:
    if row["kind"] != "task":
        return None
    if row["run_attempt"] is None:
        return int(row["attempt"] or 0) if row["started_at"] is not None else 0
    is_under_way = row["state"] == "running" or row["run_parks"]
    return max(0, int(row["run_attempt"]) - (0 if is_under_way else 1))


def _has_ended(row: Row) -> bool:
    return row["ended_at"] is not None or row["state"] in {"completed", "failed", "cancelled", "partial", "forgotten"}


def awaited(row: Row) -> str:
    """What a step waits for, in a sentence without its end."""
    until = "" if row["due_at"] is None else f", until {row['due_at']:%F %T} UTC"
    if row["kind"] == "task":
        return _run_awaited(row)
    if row["kind"] == "sleep":
        return f"It sleeps{until}"
    if row["kind"] == "event":
        wanted = ", ".join(f"{name} = {orjson.dumps(value).decode()}" for name, value in (row["match"] or {}).items())
        return f"It waits for an event {row['name']}{f' with {wanted}' if wanted else ''}{until}"
    if row["kind"] == "repair":
        return "It waits for somebody to say whether it is tried again"
    return f"It waits for somebody to approve it{until}"


def _run_awaited(row: Row) -> str:
    if row["run_parks"] and row["state"] == "pending":
        return "Its run is a workflow, and waits for its own steps"
    if row["state"] == "running":
        return f"Its run executes, attempt {row['run_attempt']}"
    if row["state"] == "retrying":
        return f"Its run is tried again at {row['run_at']:%F %T} UTC"
    words = {
        "paused": "Its run is paused until somebody resumes it",
        "queued": "Its run waits for a free slot of a worker",
    }
    return words.get(row["state"], f"Its run is {row['state']}")


def _waits_for(run: Row, counts: Mapping[tuple[str, str], int]) -> str | None:
    """What a workflow waits for, in a sentence without its end."""
    if run["finished_at"] is not None or run["state"] == "running":
        return None
    if run["state"] != "pending":
        return {"paused": "It is paused until somebody resumes it"}.get(run["state"], "It goes on at once")
    ended = {"completed", "failed", "cancelled", "partial", "expired", "forgotten"}
    open_steps: Counter[str] = Counter()
    for (kind, state), number in counts.items():
        open_steps[kind] += 0 if state in ended else number
    words = [_counted(number, *_WORDS[kind]) for kind, number in sorted(open_steps.items()) if number]
    return f"It waits for {' and '.join(words)}" if words else "It waits"


_WORDS = {
    "approval": ("approval", "approvals"),
    "event": ("event", "events"),
    "repair": ("repair", "repairs"),
    "sleep": ("moment", "moments"),
    "task": ("run", "runs"),
}


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


async def _all(connection: AsyncConnection, query: Any, **values: object) -> list[Row]:
    return [dict(row) for row in (await connection.execute(query, values)).mappings()]
