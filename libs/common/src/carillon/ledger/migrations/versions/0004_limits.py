"""Whose turn it is at the limits of tasks, and how soon another run may start."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

GATED = "state in ('queued', 'retrying') and gated"


def upgrade() -> None:
    """Apply."""
    op.execute("""
        create table carillon.turns (
            task text not null constraint pk_turns primary key,
            last_gate text,
            served_at timestamptz,
            full_at timestamptz
        ) with (fillfactor = 50)
    """)
    op.execute("""
        create table carillon.buckets (
            task text not null,
            gate text not null,
            full_at timestamptz not null,
            constraint pk_buckets primary key (task, gate)
        ) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)
    """)
    op.execute("create index ix_buckets_full on carillon.buckets (task, full_at)")
    # When the next of those that wait is due; only runs that wait for limits pay for it. The last condition always holds:
    # who does not name it is not offered this index, which for every other question is the wrong one.
    op.execute(f"""
        create index ix_runs_live_gated_due on carillon.runs_live (domain, run_at)
        where {GATED} and run_at > '-infinity'
    """)


def downgrade() -> None:
    """Take back: runs that wait for limits go on by those that their workers know."""
    op.execute("drop index carillon.ix_runs_live_gated_due")
    op.execute("drop table carillon.buckets")
    op.execute("drop table carillon.turns")
