"""New runs, events and ends as the parallel arrays that the statements take, in the order of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from carillon.ledger.records import After, Finish, NewEvent, NewRun, State

Arrays = list[list[Any]]


def run_arrays(runs: Sequence[NewRun], dispatched: Sequence[bool] | None = None) -> Arrays:
    """`carillon.ledger.statements.accept`: `_NEW_RUN`."""
    return [
        [r.id for r in runs],
        [r.domain for r in runs],
        [r.task for r in runs],
        [r.args for r in runs],
        [orjson.dumps(r.labels).decode() if r.labels else "{}" for r in runs],
        [r.priority for r in runs],
        [r.run_at for r in runs],
        [r.expires_at for r in runs],
        list(dispatched) if dispatched is not None else [False] * len(runs),
        [r.idempotency_key for r in runs],
        [r.parent_id for r in runs],
        [r.event_id for r in runs],
        [None if r.cause is None else orjson.dumps(r.cause).decode() for r in runs],
        [r.actor for r in runs],
        [r.traceparent for r in runs],
        [_rare(r) for r in runs],
    ]


def event_arrays(events: Sequence[NewEvent], *, published: bool) -> Arrays:
    """`carillon.ledger.statements.accept`: `_NEW_EVENT`. `published` says that none has to be, whatever they say."""
    return [
        [e.id for e in events],
        [e.event_id for e in events],
        [e.source for e in events],
        [e.type for e in events],
        [e.subject for e in events],
        [e.time for e in events],
        [e.data for e in events],
        [e.run_id for e in events],
        [e.actor for e in events],
        [e.traceparent for e in events],
        [published or e.published for e in events],
    ]


def end_arrays(ends: Sequence[Finish]) -> Arrays:
    """`carillon.ledger.statements.execute`: what `FINISH` and `FINISH_AND_SAY` share."""
    return [
        [f.id for f in ends],
        [f.attempt for f in ends],
        [f.state.value for f in ends],
        [f.result for f in ends],
        [f.error for f in ends],
        [f.log for f in ends],
    ]


def retry_arrays(ends: Sequence[Finish]) -> Arrays:
    """`carillon.ledger.statements.execute`: what only `FINISH_AND_SAY` takes."""
    return [[f.outcome for f in ends], [f.run_at for f in ends], [f.uncounted for f in ends]]


def _rare(run: NewRun) -> str | None:
    """What few runs have, as one JSON object."""
    if (
        run.after is None
        and run.unique is None
        and run.deadline_at is None
        and run.callback_url is None
        and run.replay_of is None
        and run.step is None
    ):
        return None
    given: Mapping[str, UUID | datetime | str | int | Mapping[str, str | float] | None] = {
        "state": None if run.after is None else State.PENDING.value,
        "after": None if run.after is None else _after(run.after),
        "unique_key": None if run.unique is None else run.unique.key_for(run.args),
        "deadline_at": run.deadline_at,
        "callback_url": run.callback_url,
        "replay_of": run.replay_of,
        "covered": run.covered,
        "step": run.step,
    }
    # The ids that asyncpg reads are of a type of its own.
    return orjson.dumps({name: value for name, value in given.items() if value is not None}, default=str).decode()


def _after(after: After) -> Mapping[str, str | float]:
    return {"when": after.when, "otherwise": after.otherwise, "delay_seconds": after.delay.total_seconds()}
