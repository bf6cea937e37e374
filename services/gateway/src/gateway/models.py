"""The tables of the gateway: keys by name, and secrets that its replicas share."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, DateTime, LargeBinary, MetaData, Table, Text, UniqueConstraint, func

metadata = MetaData(schema="gateway")

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    #: SHA-256 of the secret; the secret itself is nowhere.
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True)),
    UniqueConstraint("digest", name="uq_keys_digest"),
    CheckConstraint("octet_length(digest) = 32", name="ck_keys_digest"),
    CheckConstraint("name ~ '^[a-z][a-z0-9_-]{0,62}$'", name="ck_keys_name"),
)

secrets = Table(
    "secrets",
    metadata,
    #: `cursors`: proves that a page cursor was made by a gateway of this installation.
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
