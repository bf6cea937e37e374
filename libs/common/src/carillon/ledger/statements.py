"""The SQL of the hot path. Each statement is a whole transaction: there is no moment between its parts."""

from __future__ import annotations

#: Wakes whoever waits for runs of these domains: those due at once, or so soon that a poll would be late.
_WAKE = """
    select pg_notify('carillon_runs', domain) from {rows}
    where dispatched_at is null and run_at <= now() + interval '2 seconds' group by domain
"""

_RUN_COLUMNS = """
    id, domain, task, state, args, labels, priority, run_at, expires_at, dispatched_at, idempotency_key,
    parent_id, event_id, cause, actor, traceparent
"""


def _new_runs(first: int) -> str:
    """The rows of sixteen parallel arrays, which `Ledger._run_arrays` builds, as parameters from `first` on."""
    kinds = [
        "uuid",
        "text",
        "text",
        "text",
        "text",
        "text",
        "smallint",
        "timestamptz",
        "timestamptz",
        "boolean",
        "text",
        "uuid",
        "uuid",
        "text",
        "text",
        "text",
    ]
    names = [
        "id",
        "domain",
        "task",
        "state",
        "args",
        "labels",
        "priority",
        "run_at",
        "expires_at",
        "dispatched",
        "idempotency_key",
        "parent_id",
        "event_id",
        "cause",
        "actor",
        "traceparent",
    ]
    arrays = ", ".join(f"${first + index}::{kind}[]" for index, kind in enumerate(kinds))
    return f"""
        select n.id, n.domain, n.task, n.state, n.args::jsonb, n.labels::jsonb, n.priority,
               coalesce(n.run_at, now()), n.expires_at, case when n.dispatched then now() end, n.idempotency_key,
               n.parent_id, n.event_id, n.cause::jsonb, n.actor, n.traceparent
        from unnest({arrays}) as n({", ".join(names)})
    """


def _new_events(first: int) -> str:
    """The rows of eleven parallel arrays, which `Ledger._event_arrays` builds, as parameters from `first` on."""
    kinds = ["uuid", "text", "text", "text", "text", "timestamptz", "text", "uuid", "text", "text", "boolean"]
    names = [
        "id",
        "event_id",
        "source",
        "type",
        "subject",
        "time",
        "data",
        "run_id",
        "actor",
        "traceparent",
        "published",
    ]
    arrays = ", ".join(f"${first + index}::{kind}[]" for index, kind in enumerate(kinds))
    return f"""
        select n.id, n.event_id, n.source, n.type, n.subject, n.time, n.data::jsonb, n.run_id, n.actor, n.traceparent,
               case when n.published then now() end
        from unnest({arrays}) as n({", ".join(names)})
    """


RUN_ARRAYS = 16
EVENT_ARRAYS = 11

_EVENT_COLUMNS = "id, event_id, source, type, subject, time, data, run_id, actor, traceparent, published_at"

SUBMIT = f"""
with accepted as (
    insert into carillon.runs ({_RUN_COLUMNS}) {_new_runs(1)}
    on conflict (id) do nothing
    returning id, domain, run_at, dispatched_at
), woken as ({_WAKE.format(rows="accepted")})
select id from accepted cross join (select count(*) from woken) as w
"""

#: For submits that met an id that exists: is it the same work?
SAME_WORK = """
select r.id, r.task = n.task and r.args = n.args::jsonb as same
from unnest($1::uuid[], $2::text[], $3::text[]) as n(id, task, args) join carillon.runs r on r.id = n.id
"""

#: Fenced: only the attempt that the ledger expects, and only for one worker. It may ask again, because it cannot know
#: whether a start was committed whose answer was lost with the connection.
START = """
update carillon.runs r set state = 'running', started_at = now(), worker_id = $3
from unnest($1::uuid[], $2::int[]) as d(id, attempt)
where r.id = d.id and r.attempt = d.attempt
  and (r.state in ('queued', 'retrying') and (r.expires_at is null or r.expires_at > now())
       or r.state = 'running' and r.worker_id = $3)
returning r.id
"""

#: The ledger as the transport: take and start in one step.
CLAIM = """
with ready as (
    select id from carillon.runs
    where domain = $1 and state in ('queued', 'retrying') and run_at <= now()
      and (expires_at is null or expires_at > now())
    order by priority desc, run_at, id
    limit $2 for update skip locked
)
update carillon.runs r set state = 'running', started_at = now(), worker_id = $3
from ready where r.id = ready.id
returning r.id, r.attempt, r.uncounted, r.task, r.args, r.labels, r.cause, r.traceparent
"""

#: Seconds until the next waiting run of a domain is due; null when there is none.
NEXT_DUE = """
select extract(epoch from min(run_at) - now())::float8 from carillon.runs
where domain = $1 and state in ('queued', 'retrying') and dispatched_at is null
"""


def _finish(extra: str) -> str:
    return f"""
with done as (
    select * from unnest(
        $2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::int[]
    ) as d(id, attempt, state, outcome, result, error, run_at, uncounted)
), ended as (
    update carillon.runs r set
        state = d.state,
        result = d.result::jsonb,
        error = d.error::jsonb,
        attempt = r.attempt + (d.state in ('queued', 'retrying'))::int,
        uncounted = r.uncounted + d.uncounted,
        run_at = coalesce(d.run_at, r.run_at),
        dispatched_at = case when d.state in ('queued', 'retrying') then null else r.dispatched_at end,
        finished_at = case when d.state in ('queued', 'retrying') then null else now() end
    from done d
    where r.id = d.id and r.attempt = d.attempt and r.state = 'running' and r.worker_id = $1
    returning r.id, r.domain, r.state, r.run_at, r.dispatched_at, r.started_at, d.attempt, d.outcome, d.error
), tried as (
    insert into carillon.attempts (run_id, attempt, worker_id, started_at, finished_at, outcome, error)
    select id, attempt, $1, started_at, now(), outcome, error::jsonb from ended
    on conflict do nothing
){extra}
select id from ended"""


#: How attempts end when they say nothing and ask for no retry: the hot one.
FINISH = _finish("")

#: How attempts end when some of them are retried or say events: state, result, attempt and events in one statement.
FINISH_AND_SAY = (
    _finish(
        f"""
, said as (
    insert into carillon.events ({_EVENT_COLUMNS})
    select e.* from ({_new_events(10)}) as e({_EVENT_COLUMNS}) where e.run_id in (select id from ended)
    on conflict (id) do nothing
    returning id
), answers as (
    insert into carillon.runs ({_RUN_COLUMNS})
    select a.* from ({_new_runs(10 + EVENT_ARRAYS)}) as a({_RUN_COLUMNS}) where a.event_id in (select id from said)
    on conflict (id) do nothing
    returning domain, run_at, dispatched_at
), woken as (
    {_WAKE.format(rows="answers")}
    union all
    {_WAKE.format(rows="ended").replace("where", "where state in ('queued', 'retrying') and")}
)"""
    )
    + " cross join (select count(*) from woken) as w"
)

#: Records events, with the runs that answer them where the ledger itself carries events.
SAY = f"""
with said as (
    insert into carillon.events ({_EVENT_COLUMNS}) {_new_events(1)}
    on conflict (id) do nothing
    returning id
), answers as (
    insert into carillon.runs ({_RUN_COLUMNS})
    select a.* from ({_new_runs(1 + EVENT_ARRAYS)}) as a({_RUN_COLUMNS}) where a.event_id in (select id from said)
    on conflict (id) do nothing
    returning domain, run_at, dispatched_at
), woken as ({_WAKE.format(rows="answers")})
select id from said cross join (select count(*) from woken) as w
"""

MARK_PUBLISHED = "update carillon.events set published_at = now() where id = any($1::uuid[]) and published_at is null"

#: A publish that failed: the run waits in the ledger again, if nobody started it meanwhile.
MARK_UNDISPATCHED = """
update carillon.runs set dispatched_at = null
where id = any($1::uuid[]) and state in ('queued', 'retrying')
"""

_DELIVERY_COLUMNS = "r.id, r.attempt, r.uncounted, r.task, r.args, r.labels, r.cause, r.traceparent"

#: Takes due runs from the ledger into the transport's window, most urgent first.
TAKE_DUE = f"""
with due as (
    select id from carillon.runs
    where domain = $1 and state in ('queued', 'retrying') and dispatched_at is null and run_at <= now()
      and (expires_at is null or expires_at > now())
    order by priority desc, run_at, id
    limit $2 for update skip locked
)
update carillon.runs r set dispatched_at = now() from due where r.id = due.id
returning {_DELIVERY_COLUMNS}
"""

#: Takes again what the transport should have delivered by now: given to it before $3 and still not started.
TAKE_OVERDUE = f"""
with due as (
    select id from carillon.runs
    where domain = $1 and state in ('queued', 'retrying') and dispatched_at < $3
      and (expires_at is null or expires_at > now())
    order by priority desc, run_at, id
    limit $2 for update skip locked
)
update carillon.runs r set dispatched_at = now() from due where r.id = due.id
returning {_DELIVERY_COLUMNS}
"""

EXPIRE = """
with late as (
    select id from carillon.runs
    where domain = $1 and state in ('queued', 'retrying') and expires_at <= now()
    limit 1000 for update skip locked
)
update carillon.runs r set state = 'cancelled', finished_at = now(),
    error = jsonb_build_object('type', 'Expired', 'message', 'it was not started before ' || r.expires_at)
from late where r.id = late.id returning r.id
"""

#: Runs of workers that are gone wait again, or fail when workers keep dying on them ($3 times). They begin again at
#: different moments: one of them may have killed the worker, and must not take the same company with it every time.
RESCUE = (
    """
with gone as (
    select w.id from carillon.workers w
    where w.domain = $1 and (w.stopped_at is not null or w.heartbeat_at < now() - $2::interval)
), orphans as (
    select r.id from carillon.runs r join gone on gone.id = r.worker_id
    where r.state = 'running'
    limit 1000 for update of r skip locked
), rescued as (
    update carillon.runs r set
        state = case when r.lost + 1 >= $3 then 'failed' else 'retrying' end,
        finished_at = case when r.lost + 1 >= $3 then now() end,
        error = case when r.lost + 1 >= $3 then jsonb_build_object(
            'type', 'WorkerLost', 'message', 'the worker died ' || (r.lost + 1) || ' times while it ran this') end,
        attempt = r.attempt + (r.lost + 1 < $3)::int,
        uncounted = r.uncounted + 1,
        lost = r.lost + 1, dispatched_at = null, run_at = now() + random() * interval '2 seconds'
    from orphans where r.id = orphans.id
    returning r.id, r.domain, r.state, r.run_at, r.dispatched_at, r.worker_id, r.started_at,
              r.attempt - (r.state = 'retrying')::int as attempt
), tried as (
    insert into carillon.attempts (run_id, attempt, worker_id, started_at, finished_at, outcome, error)
    select id, attempt, worker_id, started_at, now(), 'lost',
           jsonb_build_object('type', 'WorkerLost', 'message', 'its worker stopped answering') from rescued
    on conflict do nothing
), woken as ("""
    + _WAKE.format(rows="rescued").replace("where", "where state = 'retrying' and")
    + """)
select id, state from rescued cross join (select count(*) from woken) as w
"""
)

#: What the ledger says this worker runs, and it does not, waits again; the attempt is not counted. That is all of its
#: runs after a drain, and those of a claim whose answer was lost with the connection.
HAND_BACK = (
    """
with back as (
    update carillon.runs r set state = 'retrying', attempt = attempt + 1, uncounted = uncounted + 1,
        dispatched_at = null, run_at = now()
    where worker_id = $1 and state = 'running' and started_at <= now() - $2::interval and id <> all($3::uuid[])
    returning r.id, r.domain, r.run_at, r.dispatched_at, r.attempt - 1 as attempt, r.started_at
), tried as (
    insert into carillon.attempts (run_id, attempt, worker_id, started_at, finished_at, outcome)
    select id, attempt, $1, started_at, now(), 'handed_back' from back on conflict do nothing
), woken as ("""
    + _WAKE.format(rows="back")
    + """)
select id from back cross join (select count(*) from woken) as w
"""
)

#: Forgets ended runs of a domain, a bounded number at a time, with their attempts. Rows that somebody holds wait.
FORGET_RUNS = """
with old as (
    select id from carillon.runs where domain = $1 and finished_at < now() - $2::interval
    limit 1000 for update skip locked
), tries as (
    delete from carillon.attempts using old where run_id = old.id
)
delete from carillon.runs r using old where r.id = old.id returning r.id
"""

#: Forgets events and workers that are as old; whoever heard an event has long submitted its run.
FORGET_EVENTS = """
with old as (
    select id from carillon.events
    where recorded_at < now() - $1::interval and published_at is not null limit 1000 for update skip locked
), gone as (
    delete from carillon.workers where heartbeat_at < now() - $1::interval
)
delete from carillon.events e using old where e.id = old.id returning e.id
"""

UNPUBLISHED = """
select id, event_id, source, type, subject, time, data, actor, traceparent, run_id
from carillon.events where published_at is null and recorded_at < now() - $1::interval
order by recorded_at limit $2 for update skip locked
"""

#: Events of the last hour that a task of this domain hears, and that have no run of it yet.
UNHEARD = """
select e.id, e.event_id, e.source, e.type, e.time, e.data, e.traceparent, t.name as task
from carillon.tasks t join carillon.events e on e.type = t.hears
where t.domain = $1 and e.recorded_at between now() - interval '1 hour' and now() - $2::interval
  and e.recorded_at > t.registered_at
  and not exists (select 1 from carillon.runs r where r.event_id = e.id and r.task = t.name)
limit 500
"""

HEARTBEAT = """
update carillon.workers set heartbeat_at = now(), running = $2 where id = $1 and stopped_at is null
returning id
"""

ENROL = """
insert into carillon.workers (id, domain, host, pid, version, concurrency) values ($1, $2, $3, $4, $5, $6)
"""

RETIRE = "update carillon.workers set stopped_at = now(), running = 0 where id = $1"

BURY_MESSAGE = """
insert into carillon.dead_letters (id, domain, queue, reason, body, headers) values ($1, $2, $3, $4, $5, $6::jsonb)
on conflict do nothing
"""
