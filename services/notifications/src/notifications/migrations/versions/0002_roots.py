"""Creates the table of roots, and lets deliveries be forgotten by their age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, and the index by which old deliveries are found."""
    op.create_table(
        "roots",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("octet_length(value) = 32", name="ck_roots_value"),
        schema="notifications",
    )
    op.create_index("ix_deliveries_updated", "deliveries", ["updated_at"], schema="notifications")


def downgrade() -> None:
    """Drop both."""
    op.drop_index("ix_deliveries_updated", "deliveries", schema="notifications")
    op.drop_table("roots", schema="notifications")
