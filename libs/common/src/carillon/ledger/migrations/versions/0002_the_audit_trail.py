"""The audit trail, a table that chains itself and takes nothing back; and what a service shipped of each schedule."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The names are in alphabetical order and nothing stands between them, so that any JSON library writes the same bytes.
# `for update` is the lock: whoever enters next waits until this transaction ends. The time is taken under it, so that
# the order of the times is that of the numbers.
CHAIN = """
create function carillon.chain_audit() returns trigger language plpgsql set search_path = pg_catalog as $$
declare
    head carillon.audit_head%rowtype;
begin
    select * into head from carillon.audit_head for update;
    if not found then
        raise exception 'carillon.audit_head has no row; restore it from a backup, the audit trail cannot go on without';
    end if;
    new.seq := head.seq + 1;
    new.at := clock_timestamp();
    new.previous := head.hash;
    new.hash := encode(sha256(convert_to(concat(
        '{"action":', to_json(new.action),
        ',"actor":', to_json(new.actor),
        ',"at":"', to_char(new.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        '","details":', new.details,
        ',"origin":', to_json(new.origin),
        ',"previous":"', new.previous,
        '","reason":', coalesce(to_json(new.reason), 'null'),
        ',"seq":', new.seq,
        ',"subject":', to_json(new.subject),
        '}'), 'UTF8')), 'hex');
    update carillon.audit_head set seq = new.seq, hash = new.hash;
    return new;
end $$
"""

KEEP = """
create function carillon.keep_audit() returns trigger language plpgsql set search_path = pg_catalog as $$
begin
    raise exception 'the audit trail only grows: % refused', tg_op
        using errcode = 'insufficient_privilege', hint = 'enter what was done since as an entry of its own';
end $$
"""


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "schedules",
        sa.Column("shipped", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        schema="carillon",
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.CheckConstraint("seq > 0", name=op.f("ck_audit_seq")),
        sa.CheckConstraint("char_length(reason) <= 500", name=op.f("ck_audit_reason")),
        sa.CheckConstraint("octet_length(details::text) <= 8192", name=op.f("ck_audit_details")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        schema="carillon",
    )
    for column in ("actor", "action", "subject"):
        op.create_index(f"ix_audit_{column}", "audit", [column, "seq"], unique=False, schema="carillon")
    op.create_index("ix_audit_at", "audit", ["at"], unique=False, schema="carillon")
    op.create_table(
        "audit_head",
        sa.Column("one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_audit_head_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_audit_head")),
        schema="carillon",
    )
    op.execute("insert into carillon.audit_head (seq, hash) values (0, repeat('0', 64))")
    op.execute(CHAIN)
    op.execute(KEEP)
    op.execute(
        "create trigger chain before insert on carillon.audit for each row execute function carillon.chain_audit()"
    )
    op.execute(
        "create trigger keep before update or delete or truncate on carillon.audit"
        " for each statement execute function carillon.keep_audit()"
    )
    # Also where `session_replication_role` switches ordinary triggers off.
    op.execute("alter table carillon.audit enable always trigger chain")
    op.execute("alter table carillon.audit enable always trigger keep")


def downgrade() -> None:
    """Undo."""
    op.drop_table("audit_head", schema="carillon")
    op.drop_table("audit", schema="carillon")
    op.execute("drop function carillon.chain_audit()")
    op.execute("drop function carillon.keep_audit()")
    op.drop_column("schedules", "shipped", schema="carillon")
