"""The tables of notifications: one row for each message to each destination, and the roots of callbacks' secrets."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)

metadata = MetaData(schema="notifications")

deliveries = Table(
    "deliveries",
    metadata,
    #: Derived from cause, channel and destination; Message-ID and webhook-id are made of it.
    Column("id", Uuid, primary_key=True),
    #: The id of the event or run that asked.
    Column("cause", Text, nullable=False),
    Column("cause_type", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    #: Why the last attempt failed, in the other side's words.
    Column("error", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("delivered_at", DateTime(timezone=True)),
    UniqueConstraint("cause", "channel", "destination", name="uq_deliveries_cause_channel_destination"),
    Index("ix_deliveries_updated", "updated_at"),
    CheckConstraint("state in ('pending', 'delivered', 'deferred', 'refused')", name="ck_deliveries_state"),
)

roots = Table(
    "roots",
    metadata,
    #: The newest one counts, and for a while the one before it.
    Column("number", Integer, primary_key=True),
    #: Random bytes, from which the secret of every receiver of callbacks derives.
    Column("value", LargeBinary, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("octet_length(value) = 32", name="ck_roots_value"),
)
