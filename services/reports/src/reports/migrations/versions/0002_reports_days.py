"""What was heard of each day, for reports over a period."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "days",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rows", sa.JSON, nullable=False),
        schema="reports",
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("days", schema="reports")
