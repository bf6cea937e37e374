"""Creates the rollups by the hour and the day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLLUPS = ("hourly_rollups", "daily_rollups")


def upgrade() -> None:
    """Create the tables."""
    for name in ROLLUPS:
        op.create_table(
            name,
            sa.Column("bucket", sa.DateTime(timezone=True), primary_key=True),
            sa.Column("kind", sa.Text(), primary_key=True),
            sa.Column("name", sa.Text(), primary_key=True),
            sa.Column("state", sa.Text(), primary_key=True),
            sa.Column("count", sa.BigInteger(), nullable=False),
            sa.Column("seconds", sa.Double(), nullable=False),
            sa.CheckConstraint("kind in ('run', 'event')", name=f"ck_{name}_kind"),
            schema="analytics",
        )
    op.create_table(
        "dirty_days",
        sa.Column("bucket", sa.DateTime(timezone=True), primary_key=True),
        schema="analytics",
    )
    op.create_table(
        "watermarks",
        sa.Column("grain", sa.Text(), primary_key=True),
        sa.Column("watermark", sa.DateTime(timezone=True), nullable=False),
        schema="analytics",
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in ("watermarks", "dirty_days", *ROLLUPS):
        op.drop_table(name, schema="analytics")
