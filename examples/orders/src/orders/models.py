"""The tables of orders. What must never happen is forbidden here: by keys, checks and a trigger in the migration."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

metadata = MetaData(schema="orders")

#: What came in, by the supplier's number of it.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("item", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    CheckConstraint("units > 0", name="ck_deliveries_units"),
)

#: What can be reserved.
stock = Table(
    "stock",
    metadata,
    Column("item", Text, primary_key=True),
    Column("units", BigInteger, nullable=False),
    CheckConstraint("units >= 0", name="ck_stock_units"),
)

#: What is held for an order, or was; one for each order.
reservations = Table(
    "reservations",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("item", Text, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    CheckConstraint("units > 0", name="ck_reservations_units"),
    CheckConstraint("state in ('reserved', 'shipped', 'recalled', 'released')", name="ck_reservations_state"),
)

#: What moved money; an order is charged once, and gets its money back once.
transactions = Table(
    "transactions",
    metadata,
    Column("order_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("cents", BigInteger, nullable=False),
    PrimaryKeyConstraint("order_id", "kind", name="pk_transactions"),
    CheckConstraint("kind in ('charge', 'refund')", name="ck_transactions_kind"),
    CheckConstraint("cents > 0", name="ck_transactions_cents"),
)

#: What a transaction adds to each account; those of one sum to zero, which a trigger looks after at each commit.
postings = Table(
    "postings",
    metadata,
    Column("order_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("cents", BigInteger, nullable=False),
    PrimaryKeyConstraint("order_id", "kind", "account", name="pk_postings"),
    ForeignKeyConstraint(
        ["order_id", "kind"], ["orders.transactions.order_id", "orders.transactions.kind"], name="fk_postings"
    ),
)

#: What was sent. `paid_by` is always `charge`, so that there is no shipment of what was not paid for.
shipments = Table(
    "shipments",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("paid_by", Text, nullable=False, server_default=text("'charge'")),
    Column("is_recalled", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("paid_by = 'charge'", name="ck_shipments_paid_by"),
    ForeignKeyConstraint(
        ["order_id", "paid_by"], ["orders.transactions.order_id", "orders.transactions.kind"], name="fk_shipments_paid"
    ),
)

#: The bank that we play, which in a real shop is somebody else's; nothing here refers to it.
bank_payments = Table(
    "bank_payments",
    metadata,
    Column("key", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("cents", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    CheckConstraint("state in ('taken', 'returned', 'void')", name="ck_bank_payments_state"),
)
