"""The tables of the ledger, in the schema `carillon`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, UUID

SCHEMA = "carillon"

#: Constraint names that a later migration can rely on.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(schema=SCHEMA, naming_convention=NAMING)

STATES = ("pending", "queued", "running", "retrying", "paused", "completed", "failed", "cancelled", "partial")
WAITING = text("state in ('queued', 'retrying')")


def _when(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=None if nullable else func.now())


runs = Table(
    "runs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("domain", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("args", JSONB, nullable=False),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("priority", SmallInteger, nullable=False, server_default="1"),
    # The number of the current or next attempt. Every delivery carries it, and a stale one changes nothing.
    Column("attempt", Integer, nullable=False, server_default="1"),
    # Attempts that the retry policy does not count: snoozes.
    Column("uncounted", Integer, nullable=False, server_default="0"),
    # How often a worker died while it ran this.
    Column("lost", Integer, nullable=False, server_default="0"),
    _when("run_at", nullable=False),
    _when("expires_at"),
    # When it was last given to the transport; null while it waits in the ledger only.
    _when("dispatched_at"),
    Column("idempotency_key", Text),
    Column("parent_id", UUID(as_uuid=True)),
    Column("event_id", UUID(as_uuid=True)),
    # Id, type, source and time of the event that this run answers.
    Column("cause", JSONB),
    Column("actor", Text, nullable=False, server_default="unknown"),
    Column("traceparent", Text),
    _when("created_at", nullable=False),
    _when("started_at"),
    _when("finished_at"),
    Column("worker_id", UUID(as_uuid=True)),
    Column("result", JSONB),
    Column("error", JSONB),
    CheckConstraint("state in ('" + "', '".join(STATES) + "')", name="state"),
    Index("ix_runs_waiting", "domain", text("priority desc"), "run_at", "id", postgresql_where=WAITING),
    Index("ix_runs_expiring", "domain", "expires_at", postgresql_where=text(f"{WAITING} and expires_at is not null")),
    # On the id, not the worker: the end of an attempt finds its row by id, and must not wade through the dead entries
    # that thousands of ended attempts of its worker have left.
    Index("ix_runs_running", "id", postgresql_where=text("state = 'running'")),
    Index("ix_runs_event", "event_id", "task", postgresql_where=text("event_id is not null")),
    Index("ix_runs_history", text("created_at desc"), text("id desc")),
    Index("ix_runs_finished", "finished_at", postgresql_where=text("finished_at is not null")),
    # A queue's rows are updated three times and then rest: leave room on the page, and clean early.
    postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"},
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", UUID(as_uuid=True), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker_id", UUID(as_uuid=True)),
    _when("started_at"),
    _when("finished_at", nullable=False),
    # completed, failed, retried, snoozed, cancelled, lost
    Column("outcome", Text, nullable=False),
    Column("error", JSONB),
)

events = Table(
    "events",
    metadata,
    # Derived from the CloudEvents source and id, which together are unique.
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text),
    _when("time", nullable=False),
    Column("data", JSONB, nullable=False),
    Column("run_id", UUID(as_uuid=True)),
    Column("actor", Text, nullable=False, server_default="unknown"),
    Column("traceparent", Text),
    _when("recorded_at", nullable=False),
    # When the transport took it; null while it is still to be published.
    _when("published_at"),
    Index("ix_events_recorded", text("recorded_at desc"), text("id desc")),
    Index("ix_events_unpublished", "recorded_at", postgresql_where=text("published_at is null")),
    Index("ix_events_run", "run_id", postgresql_where=text("run_id is not null")),
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("domain", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("doc", Text, nullable=False),
    Column("schema", JSONB, nullable=False),
    Column("policy", JSONB, nullable=False),
    # The type of the event that it answers, if it is an event handler.
    Column("hears", Text),
    Column("says", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # Whether `kick` on its domain without a task's name means this one.
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    _when("registered_at", nullable=False),
)

event_types = Table(
    "event_types",
    metadata,
    Column("type", Text, primary_key=True),
    Column("doc", Text, nullable=False),
    Column("schema", JSONB, nullable=False),
    _when("registered_at", nullable=False),
)

domains = Table(
    "domains",
    metadata,
    Column("name", Text, primary_key=True),
    Column("asyncapi", JSONB),
    _when("registered_at", nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("domain", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("running", Integer, nullable=False, server_default="0"),
    _when("started_at", nullable=False),
    _when("heartbeat_at", nullable=False),
    _when("stopped_at"),
    Index("ix_workers_alive", "heartbeat_at", postgresql_where=text("stopped_at is null")),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("cron", Text),
    Column("interval_seconds", BigInteger),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("event_type", Text, nullable=False),
    Column("event_data", JSONB, nullable=False),
    Column("owner", Text, nullable=False),
    # What the owner shipped last. Only when it ships something else does that replace what people made of it; null is
    # a schedule that no service shipped.
    Column("shipped", JSONB),
    # Where the count of an interval begins; a cron expression does not need one.
    _when("anchor", nullable=False),
    _when("paused_at"),
    Column("paused_by", Text),
    # The last fire time that was decided, and the next one; the scheduler keeps both.
    _when("last_fire_at"),
    _when("next_fire_at"),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    _when("created_at", nullable=False),
    CheckConstraint("(cron is null) <> (interval_seconds is null)", name="one_trigger"),
)

fires = Table(
    "fires",
    metadata,
    Column("schedule", Text, nullable=False),
    Column("fire_at", DateTime(timezone=True), nullable=False),
    # fired, misfired, coalesced, paused
    Column("outcome", Text, nullable=False),
    Column("detail", Text),
    Column("event_id", UUID(as_uuid=True)),
    _when("decided_at", nullable=False),
    UniqueConstraint("schedule", "fire_at"),
    Index("ix_fires_decided", text("decided_at desc")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("domain", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", JSONB, nullable=False),
    _when("received_at", nullable=False),
)

audit = Table(
    "audit",
    metadata,
    # The table fills in `seq`, `at`, `previous` and `hash` itself, and refuses to change or lose a row.
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text),
    # Not jsonb: the hash is over these very characters.
    Column("details", JSON, nullable=False),
    # SHA-256 in hexadecimal: of the entry before, and of this one.
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    CheckConstraint("seq > 0", name="seq"),
    CheckConstraint("char_length(reason) <= 500", name="reason"),
    CheckConstraint("octet_length(details::text) <= 8192", name="details"),
    Index("ix_audit_actor", "actor", "seq"),
    Index("ix_audit_action", "action", "seq"),
    Index("ix_audit_subject", "subject", "seq"),
    Index("ix_audit_at", "at"),
)

# The newest entry of the audit trail, in one row: what the next entry follows, and how a lost end is noticed.
audit_head = Table(
    "audit_head",
    metadata,
    Column("one", Boolean, CheckConstraint("one", name="one"), primary_key=True, server_default=text("true")),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)
