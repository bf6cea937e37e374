"""What several statements share: the columns of a run, waking who waits, and moving what has ended to its day."""

from __future__ import annotations

#: Every column of a run but the day of its end, in one order for all who copy rows.
RUN = (
    "id", "domain", "task", "state", "args", "labels", "priority", "attempt", "uncounted", "lost", "run_at",
    "expires_at", "deadline_at", "dispatched_at", "gate", "gated", "idempotency_key", "unique_key", "parent_id", "step",
    "told", "wake_at", "origin", "event_id", "cause", "replay_of", "after", "awaited", "callback_url", "actor",
    "traceparent", "created_at", "started_at", "finished_at", "worker_id", "settled_at", "cancel", "progress", "result",
    "error", "log",
)  # fmt: skip

#: What a worker is told of a run.
DELIVERY = (
    "r.id, r.attempt, r.uncounted, r.task, r.args, r.labels, r.priority, r.cause, r.traceparent, r.deadline_at, r.step"
)

TODAY = "(now() at time zone 'UTC')::date"

#: Whether nothing holds the run `r`: neither its domain nor its task is paused.
NOT_HELD = "not array[r.domain, r.task] && (select coalesce(array_agg(name), '{}') from carillon.holds)"


def at(place: str, ids: str) -> str:
    """What the array in `place` has for the run `r`, where `ids` are the ids of the batch, sorted.

    By halving (`width_bucket`), and not by a join with the batch (decision 0018): that leaves the planner, whose
    statistics know little of a table that is full now and was empty a moment ago, an order in which each run is
    compared with each of the batch, or in which all that run are looked at.
    """
    return f"({place})[width_bucket(r.id, {ids}::uuid[])]"


def gate_of(domain: str) -> str:
    """What is notified of runs of a domain that have to be let in; everything else of it, by the domain's own name."""
    return f"{domain} gate"


def clock_of(domain: str) -> str:
    """What is told of sleeps and timeouts of a domain's workflows that are set, within one process."""
    return f"{domain} clock"


def wake(rows: str, also: str = "true") -> str:
    """Wake whoever starts, or lets in, the runs of these rows: due at once, or so soon that a poll would be late."""
    return f"""
    select pg_notify('carillon_runs', domain || case when gated then ' gate' else '' end) from {rows}
    where {also} and dispatched_at is null and run_at <= now() + interval '2 seconds' group by domain, gated
"""


def bury(rows: str, **changed: str) -> str:
    """Put runs that were taken out of `runs_live` into the partition of today.

    `rows` names a part of the statement that has all columns of the runs; `changed` says which get another value.
    """
    values = {"finished_at": "now()", "gated": "false"} | changed
    selected = ", ".join(values.get(column, f"g.{column}") for column in RUN)
    return f"insert into carillon.runs ({', '.join(RUN)}, ended_on) select {selected}, {TODAY} from {rows} g"


def taken_out(alias: str = "r") -> str:
    """All columns of the runs that a `delete` takes out."""
    return ", ".join(f"{alias}.{column}" for column in RUN)
