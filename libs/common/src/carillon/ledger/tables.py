"""The tables of the ledger, in the schema `carillon`."""

from __future__ import annotations

import re

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID

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
#: What a partition of `runs` or `attempts` is called.
PARTITION = re.compile(r"(runs|attempts)_(live|unfiled|d\d{8})")


def _when(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=None if nullable else func.now())


#: Runs that have not ended lie in the partition `runs_live`; the end of a run moves its row into the partition of its
#: day (UTC), which is dropped whole when it is old enough. `carillon.ledger.days` makes and drops those.
runs = Table(
    "runs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    # The day on which it ended; `infinity` while it lives.
    Column("ended_on", Date, primary_key=True, server_default=text("'infinity'::date")),
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
    # Not started after this moment, and ended by that one.
    _when("expires_at"),
    _when("deadline_at"),
    # When it was last given to the transport; null while it waits in the ledger only.
    _when("dispatched_at"),
    # Under which key its task's limits count it; null for a task without limits.
    Column("gate", Text),
    # Whether it still waits until those limits let it in.
    Column("gated", Boolean, nullable=False, server_default=text("false")),
    Column("idempotency_key", Text),
    Column("unique_key", Text),
    Column("parent_id", UUID(as_uuid=True)),
    # Which step of its parent, a workflow, it is.
    Column("step", Integer),
    # Of a workflow: of how many ends of steps it was told, after how many it goes on, and `version` and `code` that it
    # began with. It waits for its steps when it is pending and has `wake_at`.
    Column("told", Integer),
    Column("wake_at", Integer),
    Column("origin", JSONB),
    Column("event_id", UUID(as_uuid=True)),
    # Id, type, source and time of the event that this run answers.
    Column("cause", JSONB),
    # The run that this one repeats, by an operator's wish.
    Column("replay_of", UUID(as_uuid=True)),
    # For a pending run: when it goes on, and what happens when it cannot.
    Column("after", JSONB),
    # Whether somebody is to be told of its end: runs that need it, or the URL of its callback.
    Column("awaited", Boolean, nullable=False, server_default=text("false")),
    Column("callback_url", Text),
    Column("actor", Text, nullable=False, server_default="unknown"),
    Column("traceparent", Text),
    _when("created_at", nullable=False),
    # Of the current, or the last, attempt.
    _when("started_at"),
    _when("finished_at"),
    Column("worker_id", UUID(as_uuid=True)),
    # When somebody said of a failed run that nothing more has to be done about it.
    _when("settled_at"),
    # Who wants it cancelled, why and since when, while its worker has not ended it yet.
    Column("cancel", JSONB),
    Column("progress", JSONB),
    Column("result", JSONB),
    Column("error", JSONB),
    # The last lines that the last attempt logged.
    Column("log", Text),
    CheckConstraint("state in ('" + "', '".join(STATES) + "')", name="state"),
    CheckConstraint("priority between 0 and 3", name="priority"),
    Index("ix_runs_event", "event_id", "task", postgresql_where=text("event_id is not null")),
    Index("ix_runs_parent", "parent_id", postgresql_where=text("parent_id is not null")),
    Index("ix_runs_unique", "unique_key", "created_at", postgresql_where=text("unique_key is not null")),
    Index("ix_runs_replays", "replay_of", postgresql_where=text("replay_of is not null")),
    Index("ix_runs_awaited", "finished_at", postgresql_where=text("awaited and finished_at is not null")),
    Index("ix_runs_history", text("created_at desc"), text("id desc")),
    postgresql_partition_by="RANGE (ended_on)",
)

#: The ids of runs that derive from their cause, with a digest of what they do. They are remembered apart from the runs,
#: because an id is unique within one day of ends only.
causes = Table(
    "causes",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    # SHA-256 over task, line feed and arguments as PostgreSQL writes them; then, of a run that has any of it, a line
    # feed and `NewRun.covered`.
    Column("digest", LargeBinary, nullable=False),
    _when("accepted_at", nullable=False),
    Index("ix_causes_accepted", "accepted_at"),
)

#: Which runs a pending run waits for.
needs = Table(
    "needs",
    metadata,
    Column("run_id", UUID(as_uuid=True), primary_key=True),
    Column("on_id", UUID(as_uuid=True), primary_key=True),
    # How that one ended; null until then.
    Column("outcome", Text),
    Index("ix_needs_on", "on_id", postgresql_where=text("outcome is null")),
)

#: What workflows asked for, in the order in which their code did; with how it ended this is all that their code is
#: executed again over.
steps = Table(
    "steps",
    metadata,
    Column("workflow_id", UUID(as_uuid=True), primary_key=True),
    # Counted from 1.
    Column("seq", Integer, primary_key=True),
    # Of the workflow.
    Column("domain", Text, nullable=False),
    # task, sleep, event, approval, repair
    Column("kind", Text, nullable=False),
    # The task, the type of the event, or what is to be decided.
    Column("name", Text, nullable=False),
    # Of what it was asked with.
    Column("digest", Text, nullable=False),
    # The steps of whose ends the code was told since the step before, in order; 0 is a cancellation.
    Column("saw", ARRAY(Integer), nullable=False),
    # The moment at which it was asked for, by the workflow's clock.
    Column("at", DateTime(timezone=True), nullable=False),
    Column("run_id", UUID(as_uuid=True)),
    # The step that it takes back, of a saga.
    Column("undoes", Integer),
    # When a sleep is over, or the wait for an event or a decision.
    _when("due_at"),
    # Of an event: what it has to have; the names of those fields, one in each line; a digest of their values; and the
    # moment since which it counts.
    Column("match", JSONB(none_as_null=True)),
    Column("fields", Text),
    Column("wanted", Text),
    _when("since"),
    # The event that came.
    Column("event_id", UUID(as_uuid=True)),
    # How it ended: of a task a state of runs, else completed, expired or cancelled; null until then.
    Column("outcome", Text),
    Column("result", JSONB),
    Column("error", JSONB),
    # Of a task: the number of its last attempt, without those that are not counted, and when that began.
    Column("attempt", Integer),
    _when("started_at"),
    _when("ended_at"),
    Index("ix_steps_due", "domain", "due_at", postgresql_where=text("outcome is null and due_at is not null")),
    Index(
        "ix_steps_events",
        "name",
        "fields",
        "wanted",
        postgresql_where=text("outcome is null and kind = 'event'"),
    ),
    Index("ix_steps_running", "domain", "at", postgresql_where=text("outcome is null and kind = 'task'")),
    Index(
        "ix_steps_decisions",
        "domain",
        "at",
        postgresql_where=text("outcome is null and kind in ('approval', 'repair')"),
    ),
)

#: The runs that somebody saw in a preview, until they are acted upon: the act does exactly to these what was shown.
selections = Table(
    "selections",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    # cancel, replay, delete
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("filters", JSONB, nullable=False),
    Column("count", Integer, nullable=False),
    # Of how many of those that were acted upon nothing had to be done any more.
    Column("skipped", Integer, nullable=False, server_default="0"),
    # Of a replay: the run that goes ahead.
    Column("canary", UUID(as_uuid=True)),
    _when("made_at", nullable=False),
    # When it was acted upon first.
    _when("begun_at"),
)

selected = Table(
    "selected",
    metadata,
    Column("selection_id", UUID(as_uuid=True), primary_key=True),
    Column("run_id", UUID(as_uuid=True), primary_key=True),
)

#: Domains and tasks of which nothing starts until somebody lets them go on.
holds = Table(
    "holds",
    metadata,
    # A domain's word, or a task's whole name.
    Column("name", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("reason", Text),
    _when("since", nullable=False),
)

#: Attempts that did not end their run. The one that did is in the run's own row.
attempts = Table(
    "attempts",
    metadata,
    Column("run_id", UUID(as_uuid=True), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("ended_on", Date, primary_key=True, server_default=text("((now() at time zone 'UTC')::date)")),
    Column("worker_id", UUID(as_uuid=True)),
    _when("started_at"),
    _when("finished_at", nullable=False),
    # retried, snoozed, handed_back, lost
    Column("outcome", Text, nullable=False),
    Column("error", JSONB),
    Column("log", Text),
    postgresql_partition_by="RANGE (ended_on)",
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
    Index("ix_events_type", "type", "recorded_at"),
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
    # How many of its runs may execute at once, and how often one may start (`carillon.limits`); empty where only its
    # domain has a limit, and null for none.
    Column("limits", JSONB(none_as_null=True)),
    # The type of the event that it answers, if it is an event handler.
    Column("hears", Text),
    Column("says", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # Whether `kick` on its domain without a task's name means this one.
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    _when("registered_at", nullable=False),
)

# Of a task with limits: the key that was served last, and when its bucket of starts is full again. Both are written by
# whoever lets runs in, under the lock of the domain (`carillon.ledger.statements.limits`).
turns = Table(
    "turns",
    metadata,
    Column("task", Text, primary_key=True),
    Column("last_gate", Text),
    _when("served_at"),
    _when("full_at"),
)

# The same bucket for each key; a key without a row has a full one.
buckets = Table(
    "buckets",
    metadata,
    Column("task", Text, primary_key=True),
    Column("gate", Text, primary_key=True),
    Column("full_at", DateTime(timezone=True), nullable=False),
    Index("ix_buckets_full", "task", "full_at"),
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
    # How many of its runs may execute at once, whatever their task; null for no limit.
    Column("concurrency", Integer),
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

#: Circuit breakers that failed at least once; `carillon.policies.circuit.Circuit` says what the columns mean.
breakers = Table(
    "breakers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default="closed"),
    Column("failed_at", ARRAY(DateTime(timezone=True)), nullable=False, server_default=text("'{}'")),
    _when("retry_at"),
    Column("pause", Interval),
    Column("probe", UUID(as_uuid=True)),
    _when("probe_until"),
    Column("reason", Text),
    Column("changes", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("state in ('closed', 'open', 'half_open')", name="state"),
)

#: Effects that must not happen twice, by their key. `result` is JSON text as the function returned it, null while it is
#: under way.
effects = Table(
    "effects",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("arguments", Text, nullable=False),
    Column("owner", UUID(as_uuid=True), nullable=False),
    Column("leased_until", DateTime(timezone=True), nullable=False),
    Column("result", Text),
    Column("kept_until", DateTime(timezone=True), nullable=False),
    Index("ix_effects_kept", "kept_until"),
)

#: What sources of fallbacks answered last while they were well, by key; `value` is JSON text.
last_good = Table(
    "last_good",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("kept_until", DateTime(timezone=True), nullable=False),
    Index("ix_last_good_kept", "kept_until"),
)

#: Who has a place at a bulkhead, and until when.
places = Table(
    "places",
    metadata,
    Column("owner", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("leased_until", DateTime(timezone=True), nullable=False),
    Index("ix_places_name", "name"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("domain", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # The same for messages that are unreadable for the same reason.
    Column("fingerprint", Text, nullable=False, server_default=""),
    Column("body", LargeBinary, nullable=False),
    # How many bytes came, where only the first of them are kept; null where the body is whole.
    Column("size", BigInteger),
    Column("headers", JSONB, nullable=False),
    _when("received_at", nullable=False),
    Index("ix_dead_letters_received", "received_at"),
    Index("ix_dead_letters_group", "fingerprint", "received_at", "id"),
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
