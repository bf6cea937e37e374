"""Where backups are kept: the tables of the schema `backup`."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Double, Index, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    schema="backup",
    naming_convention={"pk": "pk_%(table_name)s", "ck": "ck_%(table_name)s_%(constraint_name)s"},
)

backups = Table(
    "backups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("key", Text),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("sha256", Text),
    Column("plain_bytes", BigInteger, nullable=False),
    Column("plain_sha256", Text),
    Column("tables", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("manifest", JSONB(none_as_null=True)),
    Column("manifest_sha256", Text),
    Column("dump_seconds", Double, nullable=False),
    Column("restore_seconds", Double, nullable=False),
    Column("tools", JSONB, nullable=False),
    Column("stage", Text),
    Column("reason", Text),
    CheckConstraint("state in ('dumped', 'proven', 'failed')", name="state"),
    Index("ix_backups_source_created_at", "source", "created_at"),
    Index("ix_backups_created_at", "created_at"),
)
