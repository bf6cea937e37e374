"""Ended runs lie in a partition for each day; and what waiting, limits, unique runs and steering need."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATES = "'pending', 'queued', 'running', 'retrying', 'paused', 'completed', 'failed', 'cancelled', 'partial'"
WAITING = "state in ('queued', 'retrying')"


def upgrade() -> None:
    """Apply."""
    for table in ("runs", "attempts"):
        op.execute(f"alter table carillon.{table} rename to {table}_before")
        op.execute(f"alter table carillon.{table}_before rename constraint pk_{table} to pk_{table}_before")
    for index in ("waiting", "expiring", "running", "event", "history", "finished"):
        op.execute(f"drop index carillon.ix_runs_{index}")
    op.execute("alter table carillon.tasks add limits jsonb")
    op.execute("alter table carillon.domains add concurrency integer")
    op.execute(f"""
        create table carillon.runs (
            id uuid not null,
            ended_on date not null default 'infinity'::date,
            domain text not null,
            task text not null,
            state text not null constraint ck_runs_state check (state in ({STATES})),
            args jsonb not null,
            labels jsonb not null default '{{}}'::jsonb,
            priority smallint not null default 1 constraint ck_runs_priority check (priority between 0 and 3),
            attempt integer not null default 1,
            uncounted integer not null default 0,
            lost integer not null default 0,
            run_at timestamptz not null default now(),
            expires_at timestamptz,
            deadline_at timestamptz,
            dispatched_at timestamptz,
            gate text,
            gated boolean not null default false,
            idempotency_key text,
            unique_key text,
            parent_id uuid,
            event_id uuid,
            cause jsonb,
            replay_of uuid,
            after jsonb,
            awaited boolean not null default false,
            callback_url text,
            actor text not null default 'unknown',
            traceparent text,
            created_at timestamptz not null default now(),
            started_at timestamptz,
            finished_at timestamptz,
            worker_id uuid,
            settled_at timestamptz,
            cancel jsonb,
            progress jsonb,
            result jsonb,
            error jsonb,
            log text,
            constraint pk_runs primary key (id, ended_on)
        ) partition by range (ended_on)
    """)
    op.execute("create index ix_runs_event on carillon.runs (event_id, task) where event_id is not null")
    op.execute("create index ix_runs_parent on carillon.runs (parent_id) where parent_id is not null")
    op.execute("create index ix_runs_unique on carillon.runs (unique_key, created_at) where unique_key is not null")
    op.execute("create index ix_runs_replays on carillon.runs (replay_of) where replay_of is not null")
    op.execute("create index ix_runs_awaited on carillon.runs (finished_at) where awaited and finished_at is not null")
    op.execute("create index ix_runs_history on carillon.runs (created_at desc, id desc)")
    # Updated three times and then gone: leave room on the page, and clean early.
    op.execute("""
        create table carillon.runs_live partition of carillon.runs for values from ('infinity') to (maxvalue)
        with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2)
    """)
    op.execute("create table carillon.runs_unfiled partition of carillon.runs default")
    # What waits in the ledger, most urgent first; what the transport has; what is not to be started any more.
    op.execute(f"""
        create index ix_runs_live_due on carillon.runs_live (domain, priority, run_at, id)
        where {WAITING} and not gated and dispatched_at is null
    """)
    op.execute(f"""
        create index ix_runs_live_given on carillon.runs_live (domain, priority, dispatched_at)
        where {WAITING} and dispatched_at is not null
    """)
    op.execute(f"""
        create index ix_runs_live_gated on carillon.runs_live (domain, task, gate, priority, run_at, id)
        where {WAITING} and gated
    """)
    op.execute("""
        create index ix_runs_live_admitted on carillon.runs_live (domain, task, gate)
        where gate is not null and not gated and state in ('queued', 'retrying', 'running')
    """)
    op.execute("""
        create index ix_runs_live_expiring on carillon.runs_live (domain, expires_at)
        where state in ('pending', 'queued', 'retrying', 'paused') and expires_at is not null
    """)
    # On the id, not the worker: the end of an attempt finds its row by id, and must not wade through the dead entries
    # that thousands of ended attempts of its worker have left.
    op.execute("create index ix_runs_live_running on carillon.runs_live (id) where state = 'running'")
    op.execute("""
        create table carillon.attempts (
            run_id uuid not null,
            attempt integer not null,
            ended_on date not null default ((now() at time zone 'UTC')::date),
            worker_id uuid,
            started_at timestamptz,
            finished_at timestamptz not null default now(),
            outcome text not null,
            error jsonb,
            log text,
            constraint pk_attempts primary key (run_id, attempt, ended_on)
        ) partition by range (ended_on)
    """)
    op.execute("create table carillon.attempts_unfiled partition of carillon.attempts default")
    op.execute("""
        create table carillon.causes (
            id uuid not null constraint pk_causes primary key,
            digest bytea not null,
            accepted_at timestamptz not null default now()
        )
    """)
    op.execute("create index ix_causes_accepted on carillon.causes (accepted_at)")
    op.execute("""
        create table carillon.needs (
            run_id uuid not null,
            on_id uuid not null,
            outcome text,
            constraint pk_needs primary key (run_id, on_id)
        )
    """)
    op.execute("create index ix_needs_on on carillon.needs (on_id) where outcome is null")
    op.execute("""
        create table carillon.holds (
            name text not null constraint pk_holds primary key,
            actor text not null,
            reason text,
            since timestamptz not null default now()
        )
    """)
    op.execute("""
        create table carillon.selections (
            id uuid not null constraint pk_selections primary key,
            action text not null,
            actor text not null,
            filters jsonb not null,
            count integer not null,
            canary uuid,
            made_at timestamptz not null default now(),
            begun_at timestamptz
        )
    """)
    op.execute("""
        create table carillon.selected (
            selection_id uuid not null,
            run_id uuid not null,
            constraint pk_selected primary key (selection_id, run_id)
        )
    """)
    op.execute("alter table carillon.dead_letters add fingerprint text not null default ''")
    _bring_over()
    op.execute("drop table carillon.runs_before")
    op.execute("drop table carillon.attempts_before")


def _bring_over() -> None:
    """What was there: ended runs go to the day of their end, the last attempt of each into its own row."""
    kept = """id, domain, task, state, args, labels, least(greatest(priority, 0), 3), attempt, uncounted, lost, run_at,
        expires_at, dispatched_at, idempotency_key, parent_id, event_id, cause, actor, traceparent, created_at,
        started_at, finished_at, worker_id, result, error"""
    names = kept.replace("least(greatest(priority, 0), 3)", "priority")
    op.execute(f"""
        insert into carillon.runs (ended_on, {names})
        select coalesce((finished_at at time zone 'UTC')::date, 'infinity'), {kept} from carillon.runs_before
    """)
    op.execute("""
        insert into carillon.attempts (run_id, attempt, ended_on, worker_id, started_at, finished_at, outcome, error)
        select a.run_id, a.attempt, (a.finished_at at time zone 'UTC')::date, a.worker_id, a.started_at, a.finished_at,
               a.outcome, a.error
        from carillon.attempts_before a join carillon.runs_before r on r.id = a.run_id
        where r.finished_at is null or a.attempt < r.attempt
    """)
    op.execute("""
        insert into carillon.causes (id, digest, accepted_at)
        select id, sha256(convert_to(task || E'\\n' || args::text, 'UTF8')), created_at from carillon.runs_before
        where get_byte(uuid_send(id), 6) >> 4 <> 7
    """)


def downgrade() -> None:
    """There is no way back: a ledger without days cannot hold what these tables do."""
    raise NotImplementedError("restore the backup that was taken before; see docs/decisions/0010")
