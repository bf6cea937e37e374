"""Starting and ending attempts."""

from __future__ import annotations

from carillon.ledger.statements.accept import EVENT_ARRAYS, EVENT_COLUMNS, accepting, recording
from carillon.ledger.statements.rows import DELIVERY, NOT_HELD, at, bury, taken_out, wake
from carillon.ledger.statements.workflows import GIVEN, telling, woken

#: Fenced: only the attempt that the ledger expects, only for one worker, and nothing that is paused, or was let in and
#: has to be let in again. A worker may ask again, because it cannot know whether a start was committed whose answer was
#: lost with the connection.
START = f"""
update carillon.runs_live r set state = 'running', started_at = now(), worker_id = $3
where r.id = any($1::uuid[]) and r.attempt = {at("$2::int[]", "$1")}
  and (r.state in ('queued', 'retrying') and not r.gated and {NOT_HELD}
       and (r.expires_at is null or r.expires_at > now())
       or r.state = 'running' and r.worker_id = $3)
returning r.id, r.attempt
"""

#: A run of `$1` that waits in the ledger, is due, and may start.
_READY = f"""
    r.domain = $1 and r.state in ('queued', 'retrying') and not r.gated and r.dispatched_at is null
    and r.run_at <= now() and (r.expires_at is null or r.expires_at > now()) and {NOT_HELD}
"""

#: The ledger as the transport: take and start in one step. `$4` of the `$2` slots go to those that wait longest,
#: whatever their priority; the rest to the most urgent. Each priority is looked up by itself, so that runs that are not
#: due yet, however many, are not waded through.
CLAIM = f"""
with oldest as (
    select id from carillon.runs_live where state in ('queued', 'retrying') and id in (
        select w.id from unnest(array[3, 2, 1, 0]::smallint[]) as p(priority) cross join lateral (
            select r.id, r.run_at from carillon.runs_live r where {_READY} and r.priority = p.priority
            order by r.run_at, r.id limit $4
        ) w order by w.run_at limit $4
    ) for update skip locked
), urgent as (
    select w.id from unnest(array[3, 2, 1, 0]::smallint[]) as p(priority) cross join lateral (
        select r.id from carillon.runs_live r where {_READY} and r.priority = p.priority
        order by r.run_at, r.id limit $2 for update skip locked
    ) w limit $2
), ready as (
    select id from (select id, 0 as turn from oldest union all select id, 1 from urgent) b
    group by id order by min(turn) limit $2
)
update carillon.runs_live r set state = 'running', started_at = now(), worker_id = $3
from ready where r.id = ready.id and r.state in ('queued', 'retrying')
returning {DELIVERY}
"""

#: How a run stands, for whoever waits for its result.
OUTCOME = """
select state, result, error, labels, extract(epoch from finished_at - started_at)::float8 as seconds
from carillon.runs where id = $1
"""

#: Seconds until the next run that waits in the ledger is due; null when there is none.
NEXT_DUE = """
select extract(epoch from min(w.run_at) - now())::float8
from unnest(array[3, 2, 1, 0]::smallint[]) as p(priority) cross join lateral (
    select run_at from carillon.runs_live r
    where domain = $1 and state in ('queued', 'retrying') and not gated and dispatched_at is null
      and r.priority = p.priority
    order by run_at limit 1
) w
"""

_ATTEMPT, _STATE, _RESULT, _ERROR, _LOG = (
    at(place, "$2") for place in ("$3::int[]", "$4::text[]", "$5::text[]", "$6::text[]", "$7::text[]")
)
_OUTCOME, _RUN_AT, _UNCOUNTED = (at(place, "$2") for place in ("$8::text[]", "$9::timestamptz[]", "$10::int[]"))
#: What may end here: the attempt that the ledger expects, from the worker that runs it.
_CURRENT = f"r.id = any($2::uuid[]) and r.attempt = {_ATTEMPT} and r.state = 'running' and r.worker_id = $1"
_IS_RETRIED = f"{_STATE} in ('queued', 'retrying')"
#: Whether it ends with that. A workflow that is under way is told, and may have something to undo.
_IS_UNWANTED = "(r.cancel is not null and r.wake_at is null)"

#: Whether somebody else is still to be told of the end of a run in `gone`, once a workflow was told of its step.
_AWAITED = """(g.awaited and (g.step is null or g.callback_url is not null or g.cancel is not null
    or exists (select from carillon.needs n where n.on_id = g.id and n.outcome is null)))"""
_ENDS = {"state": "g.end_state", "result": "g.end_result", "error": "g.end_error"}


def _end(*, steps: bool) -> str:
    changed = {"state": "g.end_state", "result": "g.end_result", "error": "g.end_error", "log": "g.end_log"}
    return bury("gone", **changed, **({"awaited": _AWAITED} if steps else {}))


_ENDED = f"""
with gone as (
    delete from carillon.runs_live r where {_CURRENT}
    returning {taken_out()}, {_STATE} as end_state, {_RESULT}::jsonb as end_result, {_ERROR}::jsonb as end_error,
        {_LOG} as end_log
)"""


_NO_DELIVERY = ", null::jsonb as delivery"
_WITH_GIVEN = f"union all select null, false, false, delivery from ({GIVEN}) given"


def _finish_and_say(*, steps: bool, give: bool = False) -> str:
    telling_them = telling(_ENDS, give=give) + "," if steps else ""
    waking_them = "union all " + woken() if steps else ""
    return f"""
with gone as (
    delete from carillon.runs_live r where {_CURRENT} and (not {_IS_RETRIED} or {_IS_UNWANTED})
    returning {taken_out()}, {_RESULT}::jsonb as end_result, {_LOG} as end_log,
        case when {_IS_RETRIED} then 'cancelled' else {_STATE} end as end_state,
        case when {_IS_RETRIED} then r.cancel else {_ERROR}::jsonb end as end_error
), kept as ({_end(steps=steps)}), again as (
    update carillon.runs_live r set state = {_STATE}, error = {_ERROR}::jsonb, attempt = r.attempt + 1,
        uncounted = r.uncounted + {_UNCOUNTED}, run_at = coalesce({_RUN_AT}, now()), dispatched_at = null,
        gated = r.gate is not null, log = null, worker_id = null
    where {_CURRENT} and {_IS_RETRIED} and not {_IS_UNWANTED}
    returning r.id, r.domain, r.run_at, r.dispatched_at, r.gated, r.started_at, r.attempt - 1 as attempt, r.error,
        {_OUTCOME} as outcome, {_LOG} as log
), tried as (
    insert into carillon.attempts (run_id, attempt, worker_id, started_at, outcome, error, log)
    select id, attempt, $1, started_at, outcome, error, log from again
), said as (
    insert into carillon.events ({EVENT_COLUMNS})
    select e.* from ({recording(11)}) as e({EVENT_COLUMNS}) where e.run_id in (select id from gone)
    on conflict (id) do nothing
    returning id
), {accepting(11 + EVENT_ARRAYS, only="n.event_id in (select id from said)")},
{telling_them}
woken as ({wake("accepted")} union all {wake("again")} {waking_them})
select id, awaited, limited{", delivery" if give else ""} from (
    select id, {_AWAITED if steps else "awaited"} as awaited, gate is not null as limited{_NO_DELIVERY if give else ""}
    from gone g
    union all select id, false, gated{_NO_DELIVERY if give else ""} from again
    {_WITH_GIVEN if give else ""}
) ended
cross join (select count(*) from woken) as w
"""


#: How runs end that say nothing: the hot one. The attempt that ends a run has no other row than the run's own.
FINISH = f"""{_ENDED}, kept as ({_end(steps=False)})
select id, awaited, gate is not null as limited from gone
"""

#: How attempts end when some of them are retried or say events: state, result, attempt and events in one statement. A
#: retry of what somebody wants cancelled ends it.
FINISH_AND_SAY = _finish_and_say(steps=False)


def _finish_steps(*, give: bool) -> str:
    return f"""{_ENDED}, kept as ({_end(steps=True)}), {telling(_ENDS, give=give)}, woken as ({woken()})
select * from (
    select id, {_AWAITED} as awaited, gate is not null as limited{_NO_DELIVERY if give else ""} from gone g
    {_WITH_GIVEN if give else ""}
) ended cross join (select count(*) from woken) as w
"""


_FINISHING = {
    (False, False, False): FINISH,
    (True, False, False): FINISH_AND_SAY,
    (False, True, False): _finish_steps(give=False),
    (True, True, False): _finish_and_say(steps=True),
    (False, True, True): _finish_steps(give=True),
    (True, True, True): _finish_and_say(steps=True, give=True),
}


def finishing(*, says: bool, steps: bool, give: bool) -> str:
    """The statement for ends of which some say events or are retried, or some are steps of workflows.

    With `give`, workflows that go on with that are to be given to the transport right after: rows without an id.
    """
    return _FINISHING[says, steps, give]


#: How far attempts are ($4), fenced like their ends: what reports too late changes nothing.
PROGRESS = f"""
update carillon.runs_live r set progress = {at("$4::text[]", "$2")}::jsonb where {_CURRENT}
"""
