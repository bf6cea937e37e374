"""The ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.UUID(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "attempt", name=op.f("pk_attempts")),
        schema="carillon",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        schema="carillon",
    )
    op.create_table(
        "domains",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("asyncapi", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("registered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_domains")),
        schema="carillon",
    )
    op.create_table(
        "event_types",
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("schema", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("type", name=op.f("pk_event_types")),
        schema="carillon",
    )
    op.create_table(
        "events",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("time", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=True),
        sa.Column("actor", sa.Text(), server_default="unknown", nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        schema="carillon",
    )
    op.create_index(
        "ix_events_recorded",
        "events",
        [sa.literal_column("recorded_at desc"), sa.literal_column("id desc")],
        unique=False,
        schema="carillon",
    )
    op.create_index(
        "ix_events_run",
        "events",
        ["run_id"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("run_id is not null"),
    )
    op.create_index(
        "ix_events_unpublished",
        "events",
        ["recorded_at"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("published_at is null"),
    )
    op.create_table(
        "fires",
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("event_id", sa.UUID(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.UniqueConstraint("schedule", "fire_at", name=op.f("uq_fires_schedule_fire_at")),
        schema="carillon",
    )
    op.create_index(
        "ix_fires_decided", "fires", [sa.literal_column("decided_at desc")], unique=False, schema="carillon"
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("args", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "labels", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("priority", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="1", nullable=False),
        sa.Column("uncounted", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("parent_id", sa.UUID(), nullable=True),
        sa.Column("event_id", sa.UUID(), nullable=True),
        sa.Column("cause", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("actor", sa.Text(), server_default="unknown", nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker_id", sa.UUID(), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint(
            "state in ('pending', 'queued', 'running', 'retrying', 'paused', 'completed', 'failed', 'cancelled', 'partial')",
            name=op.f("ck_runs_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        schema="carillon",
        postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"},
    )
    op.create_index(
        "ix_runs_event",
        "runs",
        ["event_id", "task"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("event_id is not null"),
    )
    op.create_index(
        "ix_runs_expiring",
        "runs",
        ["domain", "expires_at"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("state in ('queued', 'retrying') and expires_at is not null"),
    )
    op.create_index(
        "ix_runs_finished",
        "runs",
        ["finished_at"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("finished_at is not null"),
    )
    op.create_index(
        "ix_runs_history",
        "runs",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
        schema="carillon",
    )
    op.create_index(
        "ix_runs_running",
        "runs",
        ["id"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_runs_waiting",
        "runs",
        ["domain", sa.literal_column("priority desc"), "run_at", "id"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("state in ('queued', 'retrying')"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=True),
        sa.Column("interval_seconds", sa.BigInteger(), nullable=True),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("event_data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("anchor", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("last_fire_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_fire_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(cron is null) <> (interval_seconds is null)", name=op.f("ck_schedules_one_trigger")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
        schema="carillon",
    )
    op.create_table(
        "tasks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("schema", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("hears", sa.Text(), nullable=True),
        sa.Column(
            "says", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tasks")),
        schema="carillon",
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), server_default="0", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        schema="carillon",
    )
    op.create_index(
        "ix_workers_alive",
        "workers",
        ["heartbeat_at"],
        unique=False,
        schema="carillon",
        postgresql_where=sa.text("stopped_at is null"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(
        "ix_workers_alive", table_name="workers", schema="carillon", postgresql_where=sa.text("stopped_at is null")
    )
    op.drop_table("workers", schema="carillon")
    op.drop_table("tasks", schema="carillon")
    op.drop_table("schedules", schema="carillon")
    op.drop_index(
        "ix_runs_waiting",
        table_name="runs",
        schema="carillon",
        postgresql_where=sa.text("state in ('queued', 'retrying')"),
    )
    op.drop_index(
        "ix_runs_running", table_name="runs", schema="carillon", postgresql_where=sa.text("state = 'running'")
    )
    op.drop_index("ix_runs_history", table_name="runs", schema="carillon")
    op.drop_index(
        "ix_runs_finished", table_name="runs", schema="carillon", postgresql_where=sa.text("finished_at is not null")
    )
    op.drop_index(
        "ix_runs_expiring",
        table_name="runs",
        schema="carillon",
        postgresql_where=sa.text("state in ('queued', 'retrying') and expires_at is not null"),
    )
    op.drop_index(
        "ix_runs_event", table_name="runs", schema="carillon", postgresql_where=sa.text("event_id is not null")
    )
    op.drop_table("runs", schema="carillon")
    op.drop_index("ix_fires_decided", table_name="fires", schema="carillon")
    op.drop_table("fires", schema="carillon")
    op.drop_index(
        "ix_events_unpublished",
        table_name="events",
        schema="carillon",
        postgresql_where=sa.text("published_at is null"),
    )
    op.drop_index(
        "ix_events_run", table_name="events", schema="carillon", postgresql_where=sa.text("run_id is not null")
    )
    op.drop_index("ix_events_recorded", table_name="events", schema="carillon")
    op.drop_table("events", schema="carillon")
    op.drop_table("event_types", schema="carillon")
    op.drop_table("domains", schema="carillon")
    op.drop_table("dead_letters", schema="carillon")
    op.drop_table("attempts", schema="carillon")
