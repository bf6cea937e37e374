"""Creates the tables of the warehouse, the books and the bank that we play."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "orders"
TABLES = ("deliveries", "stock", "reservations", "transactions", "postings", "shipments", "bank_payments")

BALANCED = """
create function orders.check_balance() returns trigger language plpgsql as $$
declare
    off bigint;
begin
    select coalesce(sum(cents), 0) into off from orders.postings
    where order_id = coalesce(new.order_id, old.order_id) and kind = coalesce(new.kind, old.kind);
    if off <> 0 then
        raise exception 'the % of % does not sum to zero: it is off by % cents', coalesce(new.kind, old.kind),
            coalesce(new.order_id, old.order_id), off using errcode = 'check_violation';
    end if;
    return null;
end $$
"""
WATCHED = """
create constraint trigger postings_balance after insert or update or delete on orders.postings
deferrable initially deferred for each row execute function orders.check_balance()
"""


def upgrade() -> None:
    """Create the tables, and the trigger that keeps the books balanced."""
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("units > 0", name="ck_deliveries_units"),
        schema=SCHEMA,
    )
    op.create_table(
        "stock",
        sa.Column("item", sa.Text(), primary_key=True),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("units >= 0", name="ck_stock_units"),
        schema=SCHEMA,
    )
    op.create_table(
        "reservations",
        sa.Column("order_id", sa.Text(), primary_key=True),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("units > 0", name="ck_reservations_units"),
        sa.CheckConstraint("state in ('reserved', 'shipped', 'recalled', 'released')", name="ck_reservations_state"),
        schema=SCHEMA,
    )
    op.create_table(
        "transactions",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "kind", name="pk_transactions"),
        sa.CheckConstraint("kind in ('charge', 'refund')", name="ck_transactions_kind"),
        sa.CheckConstraint("cents > 0", name="ck_transactions_cents"),
        schema=SCHEMA,
    )
    op.create_table(
        "postings",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "kind", "account", name="pk_postings"),
        sa.ForeignKeyConstraint(
            ["order_id", "kind"], ["orders.transactions.order_id", "orders.transactions.kind"], name="fk_postings"
        ),
        schema=SCHEMA,
    )
    op.execute(BALANCED)
    op.execute(WATCHED)
    op.create_table(
        "shipments",
        sa.Column("order_id", sa.Text(), primary_key=True),
        sa.Column("paid_by", sa.Text(), nullable=False, server_default=sa.text("'charge'")),
        sa.Column("is_recalled", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.CheckConstraint("paid_by = 'charge'", name="ck_shipments_paid_by"),
        sa.ForeignKeyConstraint(
            ["order_id", "paid_by"],
            ["orders.transactions.order_id", "orders.transactions.kind"],
            name="fk_shipments_paid",
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "bank_payments",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("cents", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("state in ('taken', 'returned', 'void')", name="ck_bank_payments_state"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    """Drop the tables, and the function of the trigger."""
    for name in reversed(TABLES):
        op.drop_table(name, schema=SCHEMA)
    op.execute("drop function orders.check_balance()")
