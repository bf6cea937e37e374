"""Workflows: waiting without a worker, being told how steps ended, and what the code is executed again over."""

from __future__ import annotations

from collections.abc import Mapping

from carillon.ledger.statements.accept import accepting
from carillon.ledger.statements.rows import DELIVERY, at, wake

_NEW_STEP = {
    "workflow_id": "uuid",
    "seq": "int",
    "kind": "text",
    "name": "text",
    "digest": "text",
    # Comma-separated: an array of arrays would have to be a rectangle.
    "saw": "text",
    "at": "timestamptz",
    "run_id": "uuid",
    "undoes": "int",
    "due_at": "timestamptz",
    "match": "text",
}
#: How many parallel arrays `carillon.ledger.workflows` makes of new steps.
STEP_ARRAYS = len(_NEW_STEP)

#: An event that is awaited, and has not come.
_AWAITED = "s.outcome is null and s.kind = 'event'"


def _digest_of(data: str, fields: str) -> str:
    """The values that these fields of a JSON object have, in short; the same for what is awaited and for what came."""
    return rf"""
        md5(coalesce((
            select string_agg(coalesce(({data} #> string_to_array(f.name, '.'))::text, 'null'), E'\n' order by f.at)
            from unnest(string_to_array({fields}, E'\n')) with ordinality as f(name, at)
        ), ''))
    """


#: Whether the workflow `r` goes on with the ends that are counted in `c`.
_GOES_ON = "r.state = 'pending' and r.told + c.number >= r.wake_at"


def rousing(*, give: bool = False) -> str:
    """The parts that count the ends in `told`, by `workflow_id`, and let a workflow go on that has enough of them.

    In `roused` are the workflows, those that go on with the state `queued`. Whoever parks one and whoever tells one of
    an end change the same row, one after the other, and each goes by what the other wrote; so no end is missed. With
    `give` those that go on now are marked as given to the transport.
    """
    given = f"dispatched_at = case when {_GOES_ON} and not r.gated then now() else r.dispatched_at end," if give else ""
    return f"""
counted as (
    select workflow_id as id, count(*)::int as number from told group by workflow_id
), locked as (
    select r.id from counted c join carillon.runs_live r on r.id = c.id order by r.id for update of r
), roused as (
    update carillon.runs_live r set told = coalesce(r.told, 0) + c.number, {given}
        state = case when {_GOES_ON} then 'queued' else r.state end,
        run_at = case when {_GOES_ON} then now() else r.run_at end
    from counted c, locked l where r.id = c.id and l.id = c.id
    returning r.domain, r.state, r.run_at, r.dispatched_at, r.gated, {DELIVERY}
)"""


#: Of `roused`, what was marked as given to the transport just now, as JSON.
GIVEN = "select to_jsonb(r) as delivery from roused r where state = 'queued' and dispatched_at = now()"


def woken(rows: str = "roused") -> str:
    """Wake whoever starts the workflows of these rows that go on."""
    return wake(rows, also="state = 'queued'")


def telling(ended: Mapping[str, str], *, give: bool = False) -> str:
    """The parts that tell workflows of the runs in `gone` that were steps of theirs, and let them go on.

    `ended` says where state, result and error of an end are; `give` is as of `rousing`.
    """
    return f"""
told as (
    update carillon.steps s set outcome = {ended["state"]}, result = {ended["result"]}, error = {ended["error"]},
        attempt = g.attempt - g.uncounted, started_at = g.started_at, ended_at = clock_timestamp()
    from gone g where s.workflow_id = g.parent_id and s.seq = g.step and s.outcome is null
    returning s.workflow_id
), {rousing(give=give)}"""


#: Lets workflows wait: the attempt is over, and what the code asked for is recorded and begun. One that was told of
#: enough meanwhile, or that somebody wants cancelled and does not know it, goes on at once.
PARK = f"""
with parked as (
    update carillon.runs_live r set attempt = r.attempt + 1, uncounted = r.uncounted + 1, worker_id = null,
        dispatched_at = null, gated = r.gate is not null, run_at = now(), expires_at = null,
        told = coalesce(r.told, 0), wake_at = {at("$4::int[]", "$2")}, origin = {at("$6::text[]", "$2")}::jsonb,
        state = case when coalesce(r.told, 0) >= {at("$4::int[]", "$2")}
            or (r.cancel is not null and not {at("$5::boolean[]", "$2")}) then 'queued' else 'pending' end
    where r.id = any($2::uuid[]) and r.attempt = {at("$3::int[]", "$2")} and r.state = 'running' and r.worker_id = $1
    returning r.id, r.domain, r.state, r.run_at, r.dispatched_at, r.gated, r.gate, r.created_at
), issued as (
    insert into carillon.steps (workflow_id, seq, domain, kind, name, digest, saw, at, run_id, undoes, due_at, match,
        fields, wanted, since)
    select n.workflow_id, n.seq, p.domain, n.kind, n.name, n.digest, string_to_array(n.saw, ',')::int[], n.at,
        n.run_id, n.undoes, n.due_at, m.match, m.fields, m.wanted, p.created_at
    from unnest({", ".join(f"${7 + place}::{kind}[]" for place, kind in enumerate(_NEW_STEP.values()))})
        as n({", ".join(_NEW_STEP)})
    join parked p on p.id = n.workflow_id
    left join lateral (
        select n.match::jsonb as match, coalesce(string_agg(f.name, E'\\n' order by f.name), '') as fields,
            md5(coalesce(string_agg(f.value::text, E'\\n' order by f.name), '')) as wanted
        from jsonb_each(n.match::jsonb) as f(name, value)
    ) m on n.kind = 'event'
), voided as (
    update carillon.steps s set outcome = 'cancelled', ended_at = now()
    from unnest(${7 + STEP_ARRAYS}::uuid[], ${8 + STEP_ARRAYS}::int[]) as v(workflow_id, seq)
    where s.workflow_id = v.workflow_id and s.seq = v.seq and s.outcome is null and s.kind <> 'task'
      and v.workflow_id in (select id from parked)
), {accepting(9 + STEP_ARRAYS, only="n.parent_id in (select id from parked)")},
woken as ({wake("accepted")} union all {woken("parked")})
select id, gate is not null as limited, array(select id from accepted where dispatched_at is not null) as given
from parked cross join (select count(*) from woken) as w
"""

_RECORD = """
select r.id as workflow_id, coalesce(r.told, 0) as told, r.cancel, r.origin, s.seq, s.kind, s.name, s.saw, s.at,
    s.digest, s.run_id, s.outcome, s.result, s.error, s.attempt, s.started_at, s.ended_at"""
#: What the code of workflows is executed again over: one row for each step, and one for a workflow without any.
HISTORY = f"""
{_RECORD}
from carillon.runs_live r left join carillon.steps s on s.workflow_id = r.id
where r.id = any($1::uuid[]) order by r.id, s.seq
"""

#: The same for code that waits where it was: of the steps `$3` of the workflows `$2` those that have ended.
FRESH = f"""
{_RECORD}
from carillon.runs_live r left join (
    unnest($2::uuid[], $3::int[]) as a(workflow_id, seq) join carillon.steps s using (workflow_id, seq)
) on workflow_id = r.id and s.outcome is not null
where r.id = any($1::uuid[])
"""

#: Ends sleeps, and waits that have lasted long enough.
RING = f"""
with due as (
    select workflow_id, seq from carillon.steps
    where domain = $1 and outcome is null and due_at is not null and due_at <= now()
    order by due_at limit 500 for update skip locked
), told as (
    update carillon.steps s set outcome = case s.kind when 'sleep' then 'completed' else 'expired' end,
        ended_at = clock_timestamp()
    from due d where s.workflow_id = d.workflow_id and s.seq = d.seq returning s.workflow_id
), {rousing()}, woken as ({woken()})
select count(*)::int from told cross join (select count(*) from woken) as w
"""

NEXT_RING = """
select extract(epoch from min(due_at) - now())::float8 from (
    select due_at from carillon.steps where domain = $1 and outcome is null and due_at is not null
    order by due_at limit 1
) next
"""

#: Workflows whose deadline has passed while they wait are told, and may clean up.
LATE = f"""
with late as (
    select id from carillon.runs_live
    where domain = $1 and wake_at is not null and deadline_at <= now() and cancel is null
      and state in ('pending', 'queued', 'retrying', 'paused')
    limit 500 for update skip locked
), asked as (
    update carillon.runs_live r set run_at = now(),
        state = case when r.state = 'pending' then 'queued' else r.state end,
        cancel = jsonb_build_object('type', 'DeadlineExceeded',
            'message', 'it was not ended by its deadline, ' || to_char(r.deadline_at at time zone 'UTC',
                'YYYY-MM-DD HH24:MI:SS') || ' UTC')
    from late l where r.id = l.id returning r.id, r.domain, r.state, r.run_at, r.dispatched_at, r.gated
), woken as ({woken("asked")})
select count(*)::int from asked cross join (select count(*) from woken) as w
"""

#: Which of the runs that ended, `$1`, were steps; what `FINISH` tells by itself is told here for other ways to end.
TELL = f"""
with gone as (
    select id, parent_id, step, state, result, error, attempt, uncounted, started_at from carillon.runs
    where id = any($1::uuid[]) and step is not null and ended_on < 'infinity'
), {telling({"state": "g.state", "result": "g.result", "error": "g.error"})}, woken as ({woken()})
select count(*)::int from told cross join (select count(*) from woken) as w
"""

#: Steps whose runs have ended, and that were not told of it: by a process that did not know of steps.
UNTOLD = """
select s.run_id from carillon.steps s
where s.domain = $1 and s.kind = 'task' and s.outcome is null and s.at < now() - interval '30 seconds'
  and not exists (select from carillon.runs_live r where r.id = s.run_id)
  and exists (select from carillon.runs_live w where w.id = s.workflow_id)
limit 500
"""

_SHAPES = f"""
shapes as (
    select t.type, (select s.fields from carillon.steps s where {_AWAITED} and s.name = t.type
                    order by s.fields limit 1) as fields
    from (select distinct type from heard) t
    union all
    select p.type, (select s.fields from carillon.steps s where {_AWAITED} and s.name = p.type and s.fields > p.fields
                    order by s.fields limit 1)
    from shapes p where p.fields is not null
)"""

#: Gives events to the workflows that await them. What they have to have is looked up by its digest, once for each set
#: of fields that somebody goes by: so it costs the same however many wait. The planner, which may know nothing of a
#: table that was empty a moment ago, is left no other way: the digests are there before, and `offset` keeps each
#: lookup to itself.
HEAR = f"""
with recursive heard as (
    select id, event_id, source, type, data, recorded_at from carillon.events
    where id = any($1::uuid[])
), {_SHAPES}, wanted as materialized (
    select p.type, p.fields, {_digest_of("e.data", "p.fields")} as wanted, e.id, e.data, e.recorded_at
    from shapes p join heard e on e.type = p.type where p.fields is not null
), met as (
    select distinct on (s.workflow_id, s.seq) s.workflow_id, s.seq, w.id, w.data
    from wanted w cross join lateral (
        select s.workflow_id, s.seq, s.since from carillon.steps s
        where {_AWAITED} and s.name = w.type and s.fields = w.fields and s.wanted = w.wanted offset 0
    ) s
    where w.recorded_at >= s.since
      and not exists (select from carillon.steps o where o.workflow_id = s.workflow_id and o.event_id = w.id)
    order by s.workflow_id, s.seq, w.recorded_at, w.id
), told as (
    update carillon.steps s set outcome = 'completed', ended_at = clock_timestamp(), event_id = m.id,
        result = jsonb_build_object('data', m.data)
    from met m where s.workflow_id = m.workflow_id and s.seq = m.seq and s.outcome is null returning s.workflow_id
), {rousing()}, woken as ({woken()})
select count(*)::int from told cross join (select count(*) from woken) as w
"""

#: The events that came before somebody waited for them: of the workflows `$1`, since each was submitted.
LOOK_BACK = f"""
with waits as (
    select s.workflow_id, s.seq, s.name, s.fields, s.wanted, s.since from carillon.steps s
    where s.workflow_id = any($1::uuid[]) and {_AWAITED}
), met as (
    select w.workflow_id, w.seq, e.id, e.data from waits w cross join lateral (
        select e.id, e.data from carillon.events e
        where e.type = w.name and e.recorded_at >= w.since and w.wanted = {_digest_of("e.data", "w.fields")}
          and not exists (select from carillon.steps o where o.workflow_id = w.workflow_id and o.event_id = e.id)
        order by e.recorded_at, e.id limit 1
    ) e
), told as (
    update carillon.steps s set outcome = 'completed', ended_at = clock_timestamp(), event_id = m.id,
        result = jsonb_build_object('data', m.data)
    from met m where s.workflow_id = m.workflow_id and s.seq = m.seq and s.outcome is null returning s.workflow_id
), {rousing()}, woken as ({woken()})
select count(*)::int from told cross join (select count(*) from woken) as w
"""

#: Events of the last $1 of types that are awaited: a crash between an event, or a wait, and the look for the other may
#: have left them without each other.
UNMET = f"""
with recursive names as (
    select (select min(s.name) from carillon.steps s where {_AWAITED}) as name
    union all
    select (select min(s.name) from carillon.steps s where {_AWAITED} and s.name > n.name) from names n
    where n.name is not null
)
select e.id from names n cross join lateral (
    select e.id from carillon.events e where e.type = n.name and e.recorded_at > now() - $1::interval
    order by e.recorded_at desc limit 500
) e where n.name is not null limit 2000
"""

#: What somebody decides.
DECIDE = f"""
with told as (
    update carillon.steps s set outcome = 'completed', result = $3::text::jsonb, ended_at = clock_timestamp()
    where s.workflow_id = $1 and s.seq = $2 and s.kind in ('approval', 'repair') and s.outcome is null
      and exists (select from carillon.runs_live r where r.id = s.workflow_id)
    returning s.workflow_id, s.kind, s.name
), {rousing()}, woken as ({woken()})
select kind, name from told cross join (select count(*) from woken) as w
"""
