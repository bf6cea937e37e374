"""Workflows: what their code asked for, step by step, and what lets those go on that wait."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: Of runs: null for what is neither a workflow nor a step of one.
COLUMNS = (("step", "integer"), ("told", "integer"), ("wake_at", "integer"), ("origin", "jsonb"))


def upgrade() -> None:
    """Apply."""
    for name, kind in COLUMNS:
        op.execute(f"alter table carillon.runs add column {name} {kind}")
    op.execute("""
        create index ix_runs_live_parked on carillon.runs_live (domain, deadline_at)
        where wake_at is not null and deadline_at is not null
    """)
    op.create_table(
        "steps",
        sa.Column("workflow_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("saw", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_id", sa.UUID()),
        sa.Column("undoes", sa.Integer()),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("match", postgresql.JSONB()),
        sa.Column("fields", sa.Text()),
        sa.Column("wanted", sa.Text()),
        sa.Column("since", sa.DateTime(timezone=True)),
        sa.Column("event_id", sa.UUID()),
        sa.Column("outcome", sa.Text()),
        sa.Column("result", postgresql.JSONB()),
        sa.Column("error", postgresql.JSONB()),
        sa.Column("attempt", sa.Integer()),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("workflow_id", "seq", name=op.f("pk_steps")),
        schema="carillon",
    )
    op.execute("""
        create index ix_steps_due on carillon.steps (domain, due_at) where outcome is null and due_at is not null
    """)
    op.execute("""
        create index ix_steps_events on carillon.steps (name, fields, wanted) where outcome is null and kind = 'event'
    """)
    op.execute("""
        create index ix_steps_decisions on carillon.steps (domain, at)
        where outcome is null and kind in ('approval', 'repair')
    """)
    op.execute("""
        create index ix_steps_running on carillon.steps (domain, at) where outcome is null and kind = 'task'
    """)
    op.execute("create index ix_events_type on carillon.events (type, recorded_at)")


def downgrade() -> None:
    """Take back: workflows that are under way have no record any more, and fail when they go on."""
    op.execute("drop index carillon.ix_events_type")
    op.drop_table("steps", schema="carillon")
    op.execute("drop index carillon.ix_runs_live_parked")
    for name, _ in reversed(COLUMNS):
        op.execute(f"alter table carillon.runs drop column {name}")
