"""What the sweeper does: sends again, lets go what is late, and takes back from workers that are gone."""

from __future__ import annotations

from carillon.ledger.statements.rows import DELIVERY, NOT_HELD, bury, taken_out, wake

#: A publish that failed: the run waits in the ledger again, if nobody started it meanwhile.
MARK_UNDISPATCHED = """
update carillon.runs_live set dispatched_at = null
where id = any($1::uuid[]) and state in ('queued', 'retrying')
"""

_WAITS = "r.domain = $1 and r.priority = $2 and r.state in ('queued', 'retrying')"
_MAY_START = f"(r.expires_at is null or r.expires_at > now()) and {NOT_HELD}"

#: Takes due runs of one priority from the ledger into the transport's window, longest due first.
TAKE_DUE = f"""
with due as (
    select r.id from carillon.runs_live r
    where {_WAITS} and not r.gated and r.dispatched_at is null and r.run_at <= now() and {_MAY_START}
    order by r.run_at, r.id
    limit $3 for update skip locked
)
update carillon.runs_live r set dispatched_at = now() from due where r.id = due.id
returning {DELIVERY}
"""

#: Takes again what the transport should have delivered by now: given to it before $4 and still not started.
TAKE_OVERDUE = f"""
with due as (
    select r.id from carillon.runs_live r
    where {_WAITS} and r.dispatched_at < $4 and {_MAY_START}
    order by r.dispatched_at
    limit $3 for update skip locked
)
update carillon.runs_live r set dispatched_at = now() from due where r.id = due.id
returning {DELIVERY}
"""

#: Where the ledger carries runs again: what another transport once had waits here.
TAKE_BACK = """
update carillon.runs_live set dispatched_at = null
where domain = $1 and priority between 0 and 3 and dispatched_at is not null and state in ('queued', 'retrying')
returning id
"""

#: Lets go what was not started in time.
EXPIRE = f"""
with late as (
    select id from carillon.runs_live
    where domain = $1 and state in ('pending', 'queued', 'retrying', 'paused') and expires_at <= now()
    limit 1000 for update skip locked
), gone as (
    delete from carillon.runs_live r using late where r.id = late.id returning {taken_out()}
), kept as ({
    bury(
        "gone",
        state="'cancelled'",
        error='''jsonb_build_object('type', 'Expired', 'message', case when g.attempt > 1 then 'its next attempt'
            else 'it' end || ' was not started before ' || g.expires_at)''',
    )
})
select id, awaited from gone
"""

#: Runs of workers that are gone wait again, end as somebody wished, or fail as what killed their workers. Which that is
#: cannot be seen, only inferred: it was there at $3 deaths or more, no other run was there as often, and fewer workers
#: of its domain died without it in its time than with it. After $4 deaths nobody asks any more.
#: They begin again at different moments, so that the one does not take the same company with it every time.
RESCUE = f"""
with gone as (
    select w.id from carillon.workers w
    where w.domain = $1 and (w.stopped_at is not null or w.heartbeat_at < now() - $2::interval)
), orphans as (
    select r.id, r.worker_id, r.lost + 1 as lost, r.cancel is not null and r.wake_at is null as unwanted
    from carillon.runs_live r join gone on gone.id = r.worker_id
    where r.state = 'running'
    limit 1000 for update of r skip locked
), judged as materialized (
    select o.*, case
        when o.lost < $3 then false
        when o.lost >= $4 then true
        when exists (
            select from orphans n where n.worker_id = o.worker_id and n.id <> o.id and n.lost >= o.lost
        ) then false
        else o.lost > (
            select count(*) from carillon.workers w
            where w.domain = $1 and w.stopped_at is null and w.id <> o.worker_id
                and w.heartbeat_at < now() - $2::interval
                and w.heartbeat_at >= (select min(a.started_at) from carillon.attempts a where a.run_id = o.id)
                and not exists (
                    select from carillon.attempts a
                    where a.run_id = o.id and a.worker_id = w.id and a.outcome = 'lost'
                )
        ) end as guilty
    from orphans o
), over as (
    delete from carillon.runs_live r using judged j
    where r.id = j.id and (j.guilty or j.unwanted) returning {taken_out()}, j.guilty
), kept as ({
    bury(
        "over",
        state="case when g.guilty then 'failed' else 'cancelled' end",
        lost="g.lost + 1",
        error='''case when g.guilty then jsonb_build_object('type', 'WorkerLost',
            'message', 'the worker died ' || (g.lost + 1) || ' times while it ran this') else g.cancel end''',
    )
}),
rescued as (
    update carillon.runs_live r set state = 'retrying', attempt = r.attempt + 1, uncounted = r.uncounted + 1,
        lost = r.lost + 1, dispatched_at = null, gated = r.gate is not null, worker_id = null,
        run_at = now() + random() * interval '2 seconds'
    from judged j where r.id = j.id and not j.guilty and not j.unwanted
    returning r.id, r.domain, r.run_at, r.dispatched_at, r.gated, j.worker_id, r.started_at, r.attempt - 1 as attempt
), tried as (
    insert into carillon.attempts (run_id, attempt, worker_id, started_at, outcome, error)
    select id, attempt, worker_id, started_at, 'lost',
           jsonb_build_object('type', 'WorkerLost', 'message', 'its worker stopped answering') from rescued
), woken as ({wake("rescued")})
select id, awaited from (select id, awaited from over union all select id, false from rescued) moved
cross join (select count(*) from woken) as w
"""

#: What the ledger says this worker runs, and it does not, waits again; the attempt is not counted. That is all of its
#: runs after a drain, and those of a claim whose answer was lost with the connection.
HAND_BACK = f"""
with mine as (
    select id from carillon.runs_live
    where worker_id = $1 and state = 'running' and started_at <= now() - $2::interval and id <> all($3::uuid[])
    for update
), over as (
    delete from carillon.runs_live r using mine m
    where r.id = m.id and r.cancel is not null and r.wake_at is null returning {taken_out()}
), kept as ({bury("over", state="'cancelled'", error="g.cancel")}),
back as (
    update carillon.runs_live r set state = 'retrying', attempt = r.attempt + 1, uncounted = r.uncounted + 1,
        dispatched_at = null, gated = r.gate is not null, run_at = now(), worker_id = null
    from mine m where r.id = m.id and (r.cancel is null or r.wake_at is not null)
    returning r.id, r.domain, r.run_at, r.dispatched_at, r.gated, r.attempt - 1 as attempt, r.started_at
), tried as (
    insert into carillon.attempts (run_id, attempt, worker_id, started_at, outcome)
    select id, attempt, $1, started_at, 'handed_back' from back
), woken as ({wake("back")})
select id, awaited from (select id, awaited from over union all select id, false from back) moved
cross join (select count(*) from woken) as w
"""

#: Events that a task of this domain hears, and that have no run of it yet: of the last hour, no older than the task.
#: Who asked to be called back is, however late the first comes who can: the ends of runs count from $3 ago.
UNHEARD = """
select e.id, e.event_id, e.source, e.type, e.time, e.data, e.traceparent, t.name as task
from carillon.tasks t join carillon.events e on e.type = t.hears
where t.domain = $1 and e.recorded_at between now() - $3::interval and now() - $2::interval
  and (e.recorded_at > greatest(t.registered_at, now() - interval '1 hour') or e.type = 'carillon.run_ended.v1')
  and not exists (select 1 from carillon.runs r where r.event_id = e.id and r.task = t.name)
limit 500
"""

UNPUBLISHED = """
select id, event_id, source, type, subject, time, data, actor, traceparent, run_id
from carillon.events where published_at is null and recorded_at < now() - $1::interval
order by recorded_at limit $2 for update skip locked
"""

#: Forgets events and workers that are this old; whoever heard an event has long submitted its run.
FORGET_EVENTS = """
with old as (
    select id from carillon.events
    where recorded_at < now() - $1::interval and published_at is not null limit 5000 for update skip locked
), gone as (
    delete from carillon.workers where heartbeat_at < now() - $1::interval
)
delete from carillon.events e using old where e.id = old.id returning e.id
"""

#: Forgets causes that are this old and whose runs are forgotten.
FORGET_CAUSES = """
with old as (
    select c.id from carillon.causes c
    where c.accepted_at < now() - $1::interval and not exists (select 1 from carillon.runs r where r.id = c.id)
    order by c.accepted_at limit 5000 for update skip locked
)
delete from carillon.causes c using old where c.id = old.id returning c.id
"""

#: Forgets unreadable messages that came this long ago.
FORGET_MESSAGES = """
with old as (
    select id from carillon.dead_letters where received_at < now() - $1::interval
    order by received_at limit 5000 for update skip locked
)
delete from carillon.dead_letters l using old where l.id = old.id returning l.id
"""

#: Forgets fires that were decided this long ago, but for the newest 50 of each schedule: what fires once a year has a
#: history as well.
FORGET_FIRES = """
with old as (
    select f.schedule, f.fire_at from carillon.fires f
    where f.decided_at < now() - $1::interval and exists (
        select from carillon.fires n where n.schedule = f.schedule and n.fire_at > f.fire_at
        order by n.fire_at offset 49 limit 1
    )
    order by f.decided_at limit 5000 for update skip locked
)
delete from carillon.fires f using old where f.schedule = old.schedule and f.fire_at = old.fire_at returning f.fire_at
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
insert into carillon.dead_letters (id, domain, queue, reason, body, headers, fingerprint, size)
values ($1, $2, $3, $4, $5, $6::jsonb, $7, $8)
on conflict do nothing
"""
