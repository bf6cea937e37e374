"""Rendered reports, their artefacts, and the last rollups heard."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "reports",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("as_of", moment, nullable=False),
        sa.Column("data_sha256", sa.Text, nullable=False),
        sa.Column("rendered_at", moment, nullable=False, server_default=sa.func.now()),
        schema="reports",
    )
    op.create_index("ix_reports_reports_rendered_at", "reports", ["rendered_at"], schema="reports")
    op.create_table(
        "artefacts",
        sa.Column("report_id", sa.Uuid, sa.ForeignKey("reports.reports.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("as_of", moment, nullable=False),
        schema="reports",
    )
    op.create_table(
        "datasets",
        sa.Column("report", sa.Text, primary_key=True),
        sa.Column("as_of", moment, nullable=False),
        sa.Column("rollups", sa.JSON, nullable=False),
        sa.Column("heard_at", moment, nullable=False, server_default=sa.func.now()),
        schema="reports",
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("datasets", "artefacts", "reports"):
        op.drop_table(table, schema="reports")
