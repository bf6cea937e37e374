"""Creates the tables of keys and shared secrets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "keys",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("digest", name="uq_keys_digest"),
        sa.CheckConstraint("octet_length(digest) = 32", name="ck_keys_digest"),
        sa.CheckConstraint("name ~ '^[a-z][a-z0-9_-]{0,62}$'", name="ck_keys_name"),
        schema="gateway",
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        schema="gateway",
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("secrets", schema="gateway")
    op.drop_table("keys", schema="gateway")
