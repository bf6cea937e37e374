"""Letting runs in that wait for limits: what is admitted is counted in its rows, what may start is counted in buckets.

A bucket is one moment, `full_at`, at which it is full again; each start moves it by `every`, the seconds that one start
takes to come back. What was let in and has not started yet takes from its bucket for as long as it waits.
"""

from __future__ import annotations

from carillon.ledger.statements.rows import NOT_HELD, wake

#: A run `r` that waits until it is let in, whenever it is due.
GATED = "r.state in ('queued', 'retrying') and r.gated"
#: The same of runs found by their ids. Nobody else lets runs in meanwhile; and were `gated` named, a plan might read
#: all that wait, and not find these.
_STILL = "r.state in ('queued', 'retrying')"
#: A run `a` that was let in and has not ended: it has a slot, whatever became of its worker.
_ADMITTED = "a.gate is not null and not a.gated and a.state in ('queued', 'retrying', 'running')"


def _every(rate: str) -> str:
    """The seconds in which one start of a rate comes back."""
    return f"(t.limits->'{rate}'->>'per_seconds')::float8 / (t.limits->'{rate}'->>'number')::int"


def _first(rate: str) -> str:
    """The seconds before a bucket is full again at which it has one start."""
    return f"make_interval(secs => ((t.limits->'{rate}'->>'burst')::int - 1) * {_every(rate)})"


#: One at a time lets runs of a domain in, whoever it is; the others come back a moment later.
LOCK = "select pg_try_advisory_xact_lock(hashtextextended('limits ' || $1, 0))"

ANY_GATED = f"select exists(select from carillon.runs_live r where r.domain = $1 and {GATED})"
#: Whether the domain has limits, so that what is submitted may have to be let in.
LIMITED = "select exists(select from carillon.tasks where domain = $1 and limits is not null)"

#: The tasks of which runs wait, those first that were served longest ago. `admitted` and `unstarted` are counted where
#: a limit of the task needs them. Tasks are found one by one from the index, however many of their runs wait.
LOOK = f"""
with recursive waiting as (
    (select r.task from carillon.runs_live r where r.domain = $1 and {GATED} order by r.task limit 1)
    union all
    select n.task from waiting w cross join lateral (
        select r.task from carillon.runs_live r where r.domain = $1 and {GATED} and r.task > w.task
        order by r.task limit 1
    ) n
)
select r.task, t.limits, u.last_gate, extract(epoch from u.full_at - now())::float8 as debt_seconds,
       c.admitted, c.unstarted
from (select $1 as domain, w.task from waiting w) r
left join carillon.tasks t on t.name = r.task
left join carillon.turns u on u.task = r.task
cross join lateral (
    select count(*) as admitted, count(*) filter (where a.state <> 'running') as unstarted from carillon.runs_live a
    where t.limits ?| array['concurrency', 'rate'] and a.domain = $1 and a.task = r.task and {_ADMITTED}
) c
where {NOT_HELD}
order by u.served_at nulls first, r.task
"""

#: How many runs of the domain may be at its workers, and how many are; no row when there is no such limit.
DOMAIN = f"""
select d.concurrency, (
    select count(*) from carillon.runs_live a where a.domain = $1 and {_ADMITTED}
) as admitted
from carillon.domains d where d.name = $1 and d.concurrency is not null
"""

#: What is held gives its slots to others, and waits again until it is let in.
GATE_HELD = f"""
with held as (
    select a.id from carillon.runs_live a cross join lateral (select a.domain, a.task) r
    where exists (select from carillon.holds) and a.domain = $1 and {_ADMITTED} and a.state <> 'running'
      and not ({NOT_HELD})
    for update of a skip locked
)
update carillon.runs_live r set gated = true, dispatched_at = null from held where r.id = held.id and {_STILL}
"""

#: What was let in and nobody has started waits again: of the domain $1, or of its task $2. What is being started just
#: now is not waited for: whoever starts several runs may wait for another of them.
GATE_AGAIN = f"""
with before as (
    select a.id from carillon.runs_live a
    where a.domain = $1 and $2::text in (a.domain, a.task) and {_ADMITTED} and a.state <> 'running'
    for update skip locked
)
update carillon.runs_live r set gated = true, dispatched_at = null from before where r.id = before.id and {_STILL}
"""

#: Lets go up to $3 runs of a task that has no limits any more.
LET_GO = f"""
with free as (
    select r.id from carillon.runs_live r where r.domain = $1 and r.task = $2 and {GATED} limit $3
    for update skip locked
), admitted as (
    update carillon.runs_live r set gated = false, gate = null from free f where r.id = f.id and {_STILL}
    returning r.domain, r.gated, r.run_at, r.dispatched_at
), woken as ({wake("admitted")})
select count(*) from admitted cross join (select count(*) from woken) as w
"""

_DUE = "r.run_at <= now() and (r.expires_at is null or r.expires_at > now())"
_OF_TASK = f"r.domain = $1 and r.task = $2 and {GATED}"
_PRIORITIES = "unnest(array[3, 2, 1, 0]::smallint[]) as p(priority)"


def _due_of_key(columns: str, limit: str) -> str:
    """Due runs of the key `k`, looked up for each priority by itself: what is due later is not waded through."""
    return f"""
        {_PRIORITIES} cross join lateral (
            select {columns} from carillon.runs_live r
            where {_OF_TASK} and r.gate = k.gate and r.priority = p.priority and {_DUE}
            order by r.run_at, r.id limit {limit}
        ) m
    """


#: Lets in up to $3 runs of a task. Its keys take turns: round they go, from the one after $4 on, $5 of them at most,
#: each found from the index without reading the runs of the one before, until as many have a run as there is room for.
#: $6: slots of a key. $7, $8: seconds that a start of a key takes to come back, and how many may start together.
#: $9: whether it is the turn of those that wait longest, whatever their priority.
#: $10, $11: seconds that a start of the task takes to come back, and that its bucket is from being full.
#: Answers with how many were let in, and whether there are keys that were not looked at.
ADMIT = f"""
with recursive ring as (
    select 0 as position, $4::text as gate, false as wrapped
    union all
    select s.position + 1, n.gate, n.wrapped
    from ring s cross join lateral (
        select * from (
            (select r.gate, s.wrapped from carillon.runs_live r
             where {_OF_TASK} and r.gate > s.gate order by r.gate limit 1)
            union all
            (select r.gate, true from carillon.runs_live r
             where {_OF_TASK} and not s.wrapped order by r.gate limit 1)
        ) either limit 1
    ) n
    where s.position < $5 and not (n.wrapped and coalesce(n.gate > $4, false))
), keys as materialized (
    select k.position, k.gate, f.owed, f.room
    from ring k cross join lateral (
        select count(*) as busy, count(*) filter (where a.state <> 'running') as unstarted from carillon.runs_live a
        where ($6::int is not null or $7::float8 is not null)
          and a.domain = $1 and a.task = $2 and a.gate = k.gate and {_ADMITTED}
    ) c cross join lateral (
        select greatest(0, c.unstarted * $7::float8, (
            select extract(epoch from b.full_at - now())::float8 from carillon.buckets b
            where $7::float8 is not null and b.task = $2 and b.gate = k.gate
        )) as owed
    ) o cross join lateral (
        select o.owed, least(
            $3::int, $6::int - c.busy, floor($8::int - greatest(0, o.owed - 5e-7) / $7::float8)
        )::int as room
    ) f
    where k.position > 0 and f.room > 0 and exists (select from {_due_of_key("1", "1")})
    limit $3
), heads as materialized (
    select h.id, k.gate, k.position, h.rank
    from (select *, ceil($3::float8 / count(*) over ())::int as share from keys) k cross join lateral (
        select m.id, row_number() over (
            order by case when $9::boolean then m.run_at end, m.priority desc, m.run_at, m.id
        ) as rank
        from {_due_of_key("r.id, r.priority, r.run_at", "least(k.room, k.share)")}
        order by rank limit least(k.room, k.share)
    ) h
    order by h.rank, k.position limit $3
), free as (
    select r.id from carillon.runs_live r where r.id in (select id from heads) and {_STILL} for update skip locked
), admitted as (
    update carillon.runs_live r set gated = false, dispatched_at = null from free where r.id = free.id and {_STILL}
    returning r.domain, r.gate, r.gated, r.run_at, r.dispatched_at
), taken as (
    insert into carillon.buckets (task, gate, full_at)
    select $2, k.gate, now() + make_interval(secs => k.owed + count(*) * $7::float8)
    from admitted a join keys k on k.gate = a.gate where $7::float8 is not null group by k.gate, k.owed
    on conflict (task, gate) do update set full_at = excluded.full_at
), round as (
    select (select count(*) from keys) < $3 and (select max(position) from ring) >= $5 as unfinished
), turn as (
    insert into carillon.turns (task, last_gate, served_at, full_at)
    select $2, g.gate, now(), now() + make_interval(secs => $11::float8 + $10::float8 * (select count(*) from admitted))
    from round cross join lateral (
        (select gate from ring where unfinished order by position desc limit 1)
        union all
        (select gate from heads where not unfinished order by rank desc, position desc limit 1)
    ) g
    on conflict (task) do update
    set last_gate = excluded.last_gate, served_at = now(), full_at = coalesce(excluded.full_at, turns.full_at)
), woken as ({wake("admitted")})
select (select count(*) from admitted)::int as admitted, unfinished from round
cross join (select count(*) from woken) as w
"""

#: Seconds until the next moment at which something can be let in without a run having ended before: a run is due, or
#: a bucket has a start again. Null when there is none.
NEXT = f"""
select extract(epoch from least(
    (select r.run_at from carillon.runs_live r
     where r.domain = $1 and {GATED} and r.run_at > '-infinity' and r.run_at > now() order by r.run_at limit 1),
    (select min(u.full_at - {_first("rate")}) from carillon.tasks t join carillon.turns u on u.task = t.name
     where t.domain = $1 and t.limits ? 'rate' and u.full_at - {_first("rate")} > now()),
    (select min(b.full_at - {_first("rate_per_key")}) from carillon.tasks t cross join lateral (
        select b.full_at from carillon.buckets b
        where b.task = t.name and b.full_at > now() + {_first("rate_per_key")} order by b.full_at limit 1
     ) b where t.domain = $1 and t.limits ? 'rate_per_key')
) - now())::float8
"""

#: What was let in and waits for a worker has not used its start yet: its buckets do not fill meanwhile. Written when it
#: makes a difference of a tenth of a start, and of a second.
CHARGE = f"""
with rated as (
    select t.name, {_every("rate")} as every, {_every("rate_per_key")} as every_key
    from carillon.tasks t where t.domain = $1 and t.limits ?| array['rate', 'rate_per_key']
), unstarted as (
    select t.name, t.every, t.every_key, c.gate, c.number
    from rated t cross join lateral (
        select a.gate, count(*) as number from carillon.runs_live a
        where a.domain = $1 and a.task = t.name and {_ADMITTED} and a.state <> 'running' group by a.gate
    ) c
), of_keys as (
    insert into carillon.buckets as b (task, gate, full_at)
    select name, gate, now() + make_interval(secs => number * every_key) from unstarted where every_key is not null
    on conflict (task, gate) do update set full_at = excluded.full_at
    where b.full_at < excluded.full_at - make_interval(secs => greatest(1, 0.1 * (
        select every_key from rated where name = b.task)))
)
insert into carillon.turns as u (task, full_at)
select name, now() + make_interval(secs => sum(number) * every) from unstarted where every is not null
group by name, every
on conflict (task) do update set full_at = excluded.full_at
where u.full_at is null or u.full_at < excluded.full_at - make_interval(secs => greatest(1, 0.1 * (
    select every from rated where name = u.task)))
"""

#: Buckets that are full say nothing; up to $2 of them go.
FORGET_FULL = """
delete from carillon.buckets b using (
    select o.task, o.gate from carillon.tasks t cross join lateral (
        select task, gate from carillon.buckets where task = t.name and full_at < now() - interval '1 minute'
        order by full_at limit $2
    ) o where t.domain = $1 and t.limits ? 'rate_per_key'
) old
where b.task = old.task and b.gate = old.gate
"""

#: How many runs wait until they are let in; no more than $2 are counted.
WAITING = f"""
select count(*)::int from (select from carillon.runs_live r where r.domain = $1 and {GATED} limit $2) counted
"""

#: What one waiting run is measured by. Read through SQLAlchemy, hence the name of its parameter.
WHY = f"""
select r.domain, r.task, r.gate, t.limits, d.concurrency as of_domain,
    (select count(*) from carillon.runs_live a where a.domain = r.domain and {_ADMITTED}) as in_domain,
    (select count(*) from carillon.runs_live a
     where a.domain = r.domain and a.task = r.task and {_ADMITTED}) as in_task,
    (select count(*) from carillon.runs_live a
     where a.domain = r.domain and a.task = r.task and a.gate = r.gate and {_ADMITTED}) as in_key,
    extract(epoch from u.full_at - {_first("rate")} - now())::float8 as rate_seconds,
    (select extract(epoch from b.full_at - {_first("rate_per_key")} - now())::float8
     from carillon.buckets b where b.task = r.task and b.gate = r.gate) as key_rate_seconds
from carillon.runs_live r
left join carillon.tasks t on t.name = r.task
left join carillon.domains d on d.name = r.domain
left join carillon.turns u on u.task = r.task
where r.id = :run and {GATED}
"""
