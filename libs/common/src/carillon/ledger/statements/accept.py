"""Accepting runs and events."""

from __future__ import annotations

from carillon.ledger.statements.rows import wake

_NEW_RUN = {
    "id": "uuid",
    "domain": "text",
    "task": "text",
    "args": "text",
    "labels": "text",
    "priority": "smallint",
    "run_at": "timestamptz",
    "expires_at": "timestamptz",
    "dispatched": "boolean",
    "idempotency_key": "text",
    "parent_id": "uuid",
    "event_id": "uuid",
    "cause": "text",
    "actor": "text",
    "traceparent": "text",
    # What few runs have: state, deadline_at, callback_url, unique_key, replay_of, after, covered, step; one JSON
    # object, or null.
    "rare": "text",
}
_NEW_EVENT = {
    "id": "uuid",
    "event_id": "text",
    "source": "text",
    "type": "text",
    "subject": "text",
    "time": "timestamptz",
    "data": "text",
    "run_id": "uuid",
    "actor": "text",
    "traceparent": "text",
    "published": "boolean",
}
#: How many parallel arrays `carillon.ledger.arrays` makes of runs, and of events.
RUN_ARRAYS = len(_NEW_RUN)
EVENT_ARRAYS = len(_NEW_EVENT)

EVENT_COLUMNS = "id, event_id, source, type, subject, time, data, run_id, actor, traceparent, published_at"
_RUN_COLUMNS = """
    id, domain, task, state, args, labels, priority, run_at, expires_at, deadline_at, dispatched_at, gate, gated,
    idempotency_key, unique_key, parent_id, step, event_id, cause, replay_of, after, awaited, callback_url, actor,
    traceparent
"""
#: Bytes of a limit's key that fit into its index; of a longer one the beginning is kept, and its MD5.
MOST_GATE_BYTES = 200
#: Whether an id came from its cause: those of everybody else are of version 7, which no two submits share.
_DERIVED = "get_byte(uuid_send(n.id), 6) >> 4 <> 7"


def _digest(covered: str) -> str:
    """What a derived id stands for; where nothing else is covered it is of the task and the arguments alone."""
    return rf"""
        sha256(convert_to(n.task || E'\n' || (n.args::jsonb)::text || coalesce(E'\n' || ({covered}), ''), 'UTF8'))
    """


def _arrays(kinds: dict[str, str], first: int) -> str:
    arrays = ", ".join(f"${first + index}::{kind}[]" for index, kind in enumerate(kinds.values()))
    return f"unnest({arrays}) as n({', '.join(kinds)})"


def accepting(first: int, *, only: str = "true") -> str:
    """The parts `fresh` and `accepted` of a statement that takes new runs, whose arrays are parameters from `first` on.

    An id that derives from its cause is remembered in `causes` for as long as runs are kept, so that the same cause
    stays one run when that run has long ended. A task with limits has its runs wait until they are let in.
    """
    return f"""
fresh as (
    insert into carillon.causes (id, digest)
    select n.id, {_digest("n.rare::jsonb->>'covered'")} from {_arrays(_NEW_RUN, first)} where {_DERIVED} and ({only})
    on conflict (id) do nothing
    returning id
), accepted as (
    insert into carillon.runs_live ({_RUN_COLUMNS})
    select n.id, n.domain, n.task, coalesce(m.rare->>'state', 'queued'), n.args::jsonb, n.labels::jsonb, n.priority,
           coalesce(n.run_at, now()), least(n.expires_at, m.deadline_at), m.deadline_at,
           case when n.dispatched and l.gate is null then now() end, l.gate, l.gate is not null,
           n.idempotency_key, m.rare->>'unique_key', n.parent_id, (m.rare->>'step')::int, n.event_id, n.cause::jsonb,
           (m.rare->>'replay_of')::uuid, m.rare->'after',
           m.rare->>'callback_url' is not null or m.rare->>'step' is not null, m.rare->>'callback_url',
           n.actor, n.traceparent
    from {_arrays(_NEW_RUN, first)}
    cross join lateral (
        select n.rare::jsonb as rare, (n.rare::jsonb->>'deadline_at')::timestamptz as deadline_at
    ) m
    left join lateral (
        select case when octet_length(k.key) <= {MOST_GATE_BYTES} then k.key
                    else left(k.key, 40) || '#' || md5(k.key) end as gate
        from carillon.tasks t cross join lateral (
            select coalesce(n.args::jsonb #>> string_to_array(t.limits->>'key', '.'), '') as key
        ) k
        where t.name = n.task and t.limits is not null
    ) l on true
    where ({only}) and (not {_DERIVED} or n.id in (select id from fresh))
    on conflict (id, ended_on) do nothing
    returning id, domain, run_at, dispatched_at, gated
)"""


def recording(first: int) -> str:
    """The rows of new events, whose arrays are parameters from `first` on."""
    return f"""
        select n.id, n.event_id, n.source, n.type, n.subject, n.time, n.data::jsonb, n.run_id, n.actor, n.traceparent,
               case when n.published then now() end
        from {_arrays(_NEW_EVENT, first)}
    """


SUBMIT = f"""
with {accepting(1)}, woken as ({wake("accepted")})
select id, dispatched_at is not null as given from accepted cross join (select count(*) from woken) as w
"""

#: For submits that met an id that exists: is it the same work?
SAME_WORK = f"""
select n.id, coalesce(c.digest = {_digest("n.covered")}, r.task = n.task and r.args = n.args::jsonb) as same
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as n(id, task, args, covered)
left join carillon.causes c on c.id = n.id
left join carillon.runs_live r on r.id = n.id
where c.id is not null or r.id is not null
"""

#: Records events, with the runs that answer them where the ledger itself carries events.
SAY = f"""
with said as (
    insert into carillon.events ({EVENT_COLUMNS}) {recording(1)}
    on conflict (id) do nothing
    returning id
), {accepting(1 + EVENT_ARRAYS, only="n.event_id in (select id from said)")},
woken as ({wake("accepted")})
select id from said cross join (select count(*) from woken) as w
"""

MARK_PUBLISHED = "update carillon.events set published_at = now() where id = any($1::uuid[]) and published_at is null"
